"""The copying kernel against the reference: equal bits."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops, reference
from fastamr.testing import random_clips

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# S, T, V, C, l, K; a block has 64 rows where a patch has 12 numbers.
SHAPES = [
    (3, 8, 25, 3, 4, 21),
    (1, 8, 25, 3, 4, 50),
    (1, 12, 33, 3, 4, 64),
    (13, 8, 5, 3, 4, 5),
    (2, 48, 3, 3, 24, 5),
    (2, 6, 133, 2, 3, 1),
    (3, 5, 1, 3, 1, 5),
    (0, 8, 3, 3, 4, 2),
    (2, 8, 3, 3, 4, 0),
]


def choose(sequences: int, tokens: int, visible: int, device: torch.device) -> torch.Tensor:
    """Unsorted ids, some of them repeated."""
    return torch.randint(0, tokens, (sequences, visible), device=device)


def check(clips: torch.Tensor, keep: torch.Tensor, patch: int) -> None:
    found = ops.patch_gather(clips, keep, patch_frames=patch)
    assert found.dtype == clips.dtype
    assert torch.equal(found, reference.patch_gather(clips, keep, patch_frames=patch))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    sequences, frames, joints, channels, patch, visible = shape
    clips = random_clips(sequences, frames, joints, channels, dtype=dtype, device=device)
    check(clips, choose(sequences, frames // patch * joints, visible, device), patch)


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (3, 2, 1, 0), (1, 0, 2, 3)])
def test_inputs_of_other_layouts(order: tuple[int, ...], device: torch.device) -> None:
    clips = random_clips(4, 8, 5, 3, device=device)
    back = [order.index(axis) for axis in range(4)]
    strided = clips.permute(order).contiguous().permute(back)
    assert torch.equal(strided, clips)
    assert not strided.is_contiguous()
    keep = choose(14, 10, 4, device).T[:, ::2]
    check(strided, keep, 4)
    check(strided[:, :, ::2], (keep % 6).int(), 4)
    check(clips[:1].expand(4, -1, -1, -1), keep, 4)
