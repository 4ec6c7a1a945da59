"""A working copy is used while it is true, and only then."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastamr.nn import CrossAttentionBlock, CrossAttentionStack
from fastamr.nn.stacks.working_weights import (
    joined_weights,
    refresh_working_copy,
    register_working_copy,
    working_weight,
)
from fastamr.training.update.adamw import AdamW


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


class TestJoinedWeights:
    """Parameters that a stack uses as one tensor, and copies that the optimizer lays side by side for it."""

    def layers(self, features: int) -> list[nn.Linear]:
        return [nn.Linear(24, features) for _ in range(3)]

    def test_a_view_of_copies_that_lie_side_by_side(self) -> None:
        layers = self.layers(32)
        weights, biases = [each.weight for each in layers], [each.bias for each in layers]
        parameters = [parameter for layer in layers for parameter in layer.parameters()]
        optimizer = AdamW(parameters, working_dtype=torch.bfloat16, together=[weights, biases])
        for found, parts in (
            (joined_weights(weights, torch.bfloat16), weights),
            (joined_weights(biases, torch.bfloat16), biases),
        ):
            assert torch.equal(found, torch.cat([part.detach().bfloat16() for part in parts]))
            assert found.data_ptr() == working_weight(parts[0], torch.bfloat16).data_ptr()
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        now = joined_weights(weights, torch.bfloat16)
        assert torch.equal(now, torch.cat([part.detach().bfloat16() for part in weights]))

    @pytest.mark.parametrize("features", [32, 5])
    def test_a_new_tensor_where_they_do_not(self, features: int) -> None:
        """In another order, of uneven sizes, or without copies."""
        layers = self.layers(features)
        weights = [each.weight for each in layers]
        plain = torch.cat([part.detach() for part in weights])
        assert torch.equal(joined_weights(weights, torch.float32), plain)
        assert torch.equal(joined_weights(weights, torch.bfloat16), plain.bfloat16())
        AdamW(weights, working_dtype=torch.bfloat16)
        back = weights[::-1]
        expected = torch.cat([part.detach().bfloat16() for part in back])
        assert torch.equal(joined_weights(back, torch.bfloat16), expected)

    @pytest.mark.extension
    @pytest.mark.parametrize("changed", [0, 1])
    def test_a_stack_notices_that_its_keys_and_values_changed(self, changed: int) -> None:
        """The joined memory is the copies' own: a change between forward and backward must not pass unseen."""
        blocks = [CrossAttentionBlock(32, 2) for _ in range(2)]
        stack, norm = CrossAttentionStack(blocks, backend="fused"), nn.LayerNorm(32)
        parameters = [*stack.parameters(), *norm.parameters()]
        AdamW(parameters, working_dtype=torch.bfloat16, together=stack.joined_parameters())
        queries, memory = torch.randn(1, 5, 32), torch.randn(2, 6, 32)
        with torch.autocast("cpu", torch.bfloat16):
            stack(queries, memory, norm).sum().backward()
            out = stack(queries, memory, norm)
        weight = stack[changed].attn.kv.weight
        with torch.no_grad():
            weight += 1
        refresh_working_copy(weight)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()
