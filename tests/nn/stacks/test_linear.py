"""The linear layer beside a stack: nn.Linear's values and gradients, from the optimizer's copies, without casts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastamr
from fastamr.nn import WorkingLinear
from fastamr.testing import relative_error
from fastamr.training.update.adamw import AdamW

LOW = torch.bfloat16


def pair(width: int = 24, features: int = 40) -> tuple[WorkingLinear, nn.Linear, torch.Tensor]:
    """The layer, the plain one with the same parameters in float64, and an input."""
    layer = WorkingLinear(width, features)
    plain = nn.Linear(width, features).double()
    plain.load_state_dict(layer.state_dict())
    return layer, plain, torch.randn(3, 7, width)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("fused", [pytest.param(True, marks=pytest.mark.extension), False])
def test_values_and_gradients_are_those_of_the_plain_layer(copies: bool, fused: bool) -> None:
    layer, plain, x = pair()
    if copies:
        AdamW(layer.parameters(), working_dtype=LOW)
    upstream = torch.randn(3, 7, 40)
    low, wide = x.to(LOW).requires_grad_(), x.to(LOW).double().requires_grad_()
    with fastamr.backend(transformer_stack="fused" if fused else "reference"):
        with torch.autocast("cpu", LOW):
            out = layer(low)
        out.backward(upstream.to(LOW))
    plain(wide).backward(upstream.to(LOW).double())
    assert out.dtype == LOW
    assert ("_Function" in type(out.grad_fn).__name__) == fused
    assert relative_error(out, plain(wide)) < 8e-3
    assert relative_error(low.grad, wide.grad) < 8e-3
    for found, expected in zip(layer.parameters(), plain.parameters(), strict=True):
        assert found.grad.dtype == torch.float32
        assert relative_error(found.grad, expected.grad) < 8e-3


def test_the_copies_are_read() -> None:
    """What the optimizer wrote is what is multiplied with: nothing is cast, and an old copy is refreshed."""
    layer, _, x = pair()
    AdamW(layer.parameters(), working_dtype=LOW)
    with fastamr.backend(transformer_stack="fused"), torch.autocast("cpu", LOW):
        before = layer(x)
        with torch.no_grad():
            layer.bias += 1
        after = layer(x)
    torch.testing.assert_close(after.float(), before.float() + 1, rtol=0, atol=0.03)


@pytest.mark.parametrize("frozen", ["weight", "bias", "x"])
def test_only_what_is_asked_for_gets_a_gradient(frozen: str) -> None:
    layer, _, x = pair()
    tensors = {"weight": layer.weight, "bias": layer.bias, "x": x}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name != frozen)
    with fastamr.backend(transformer_stack="fused"), torch.autocast("cpu", LOW):
        layer(x).sum().backward()
    assert {name for name, tensor in tensors.items() if tensor.grad is None} == {frozen}


def test_without_autocast_and_of_other_ranks_it_is_the_plain_layer() -> None:
    layer, plain, x = pair()
    plain = plain.float()
    assert torch.equal(layer(x), plain(x))
    assert list(layer.state_dict()) == ["weight", "bias"]
    with torch.autocast("cpu", LOW):
        assert torch.equal(layer(x[0]), plain(x[0]))
        assert torch.equal(WorkingLinear(24, 4, bias=False)(x), torch.zeros(3, 7, 4)) is False
    with pytest.raises(RuntimeError, match="dtype"):
        layer(x.double())
