"""Input makers and comparers that tests and benchmarks share."""

from __future__ import annotations

import torch
from torch import Tensor


def random_clips(
    sequences: int,
    frames: int = 120,
    joints: int = 25,
    channels: int = 3,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Tensor:
    """Smooth random motion about 3 m in front of a camera.

    Returns:
        ``(S, T, V, C)`` metres: a fixed position per joint plus a random walk of about a centimetre a frame.
    """
    generator = torch.Generator().manual_seed(seed)
    place = torch.randn(sequences, 1, joints, channels, generator=generator, dtype=torch.float64) * 0.4 + 2.0
    walk = torch.randn(sequences, frames, joints, channels, generator=generator, dtype=torch.float64).cumsum(
        1
    )
    return (place + 0.01 * walk).to(device=device, dtype=dtype)


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
