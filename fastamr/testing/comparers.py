"""How near a result is to the truth."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_error(value: Tensor, truth: Tensor) -> float:
    """``|value - truth| / |truth|`` in float64; infinite if value is not finite."""
    difference = (value.double() - truth.double()).norm()
    if not torch.isfinite(difference):
        return float("inf")
    return (difference / truth.double().norm().clamp(min=1e-300)).item()


def assert_as_good_as(
    value: Tensor, truth: Tensor, peer: Tensor, *, factor: float = 2.0, floor: float = 1e-7
) -> None:
    """Assert that a result is as exact as PyTorch's own at the same dtype.

    Args:
        value: the result under test.
        truth: the float64 result.
        peer: what plain PyTorch computes at the dtype under test.
        factor: how much larger than the peer's the error may be.
        floor: relative error that always passes (rounding of an exact peer).
    """
    error, allowed = relative_error(value, truth), max(factor * relative_error(peer, truth), floor)
    assert error <= allowed, f"relative error {error:.3g} exceeds {allowed:.3g}"
