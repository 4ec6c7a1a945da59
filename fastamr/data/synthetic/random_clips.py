"""Random smooth motion, for measurements and tests that need values and no actions."""

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
