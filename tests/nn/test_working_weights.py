"""A working copy is used while it is true, and only then."""

from __future__ import annotations

import pytest
import torch

from fastamr.nn.working_weights import register_working_copy, working_weight


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
