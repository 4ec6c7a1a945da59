"""The raw patches of chosen tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def patch_gather(clips: Tensor, keep: Tensor, *, patch_frames: int) -> Tensor:
    """Gather patches ``(S, K, l*C)``, frame-major then channel; see :func:`fastamr.ops.patch_gather`."""
    sequences, frames, joints, channels = clips.shape
    grid = clips.reshape(sequences, frames // patch_frames, patch_frames, joints, channels)
    row = torch.arange(sequences, device=clips.device)[:, None]
    index = keep.long()
    patches = grid[row, index // joints, :, index % joints]
    return patches.reshape(sequences, keep.shape[1], patch_frames * channels)
