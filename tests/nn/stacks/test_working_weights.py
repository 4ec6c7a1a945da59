"""A working copy is used while it is true, and only then."""

from __future__ import annotations

import pytest
import torch

from fastamr.nn.stacks.working_weights import refresh_working_copy, register_working_copy, working_weight


@pytest.fixture
def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))


def test_without_a_copy_the_parameter_is_cast(parameter: torch.nn.Parameter) -> None:
    weight = working_weight(parameter, torch.bfloat16)
    assert torch.equal(weight, parameter.detach().to(torch.bfloat16))
    assert not weight.requires_grad
    assert working_weight(parameter, torch.float32).data_ptr() == parameter.data_ptr()


def test_a_registered_copy_is_returned_itself(parameter: torch.nn.Parameter) -> None:
    copy = parameter.detach().to(torch.bfloat16)
    register_working_copy(parameter, copy)
    assert working_weight(parameter, torch.bfloat16) is copy
    assert working_weight(parameter, torch.float16).dtype == torch.float16


def test_a_copy_left_behind_is_brought_up_to_date(parameter: torch.nn.Parameter) -> None:
    copy = parameter.detach().to(torch.bfloat16)
    register_working_copy(parameter, copy)
    with torch.no_grad():
        parameter.mul_(2)
    assert working_weight(parameter, torch.bfloat16) is copy
    assert torch.equal(copy, parameter.detach().to(torch.bfloat16))


def test_a_copy_of_another_shape_is_refused(parameter: torch.nn.Parameter) -> None:
    with pytest.raises(ValueError, match="as the parameter"):
        register_working_copy(parameter, torch.zeros(4, 3, dtype=torch.bfloat16))


def test_another_tensor_put_into_data_is_noticed(parameter: torch.nn.Parameter) -> None:
    copy = parameter.detach().to(torch.bfloat16)
    register_working_copy(parameter, copy)
    parameter.data = torch.full((3, 4), 7.0)
    assert working_weight(parameter, torch.bfloat16) is copy
    assert (copy == 7).all()
    parameter.data = torch.full((2, 5), 8.0)
    weight = working_weight(parameter, torch.bfloat16)
    assert weight.shape == (2, 5)
    assert (weight == 8).all()
    assert (copy == 7).all(), "a copy of another shape is forgotten"


def test_refreshing_says_whether_it_was_needed(parameter: torch.nn.Parameter) -> None:
    assert not refresh_working_copy(parameter)
    copy = parameter.detach().to(torch.bfloat16)
    register_working_copy(parameter, copy)
    assert not refresh_working_copy(parameter)
    with torch.no_grad():
        parameter.add_(1)
    assert refresh_working_copy(parameter)
    assert torch.equal(copy, parameter.detach().to(torch.bfloat16))
    assert not refresh_working_copy(parameter)
