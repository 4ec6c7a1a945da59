"""Gathering the raw patches of 75 visible tokens."""

from __future__ import annotations

import torch

from fastamr import ops
from fastamr.testing import random_clips

from .conftest import Clock


def test_patch_gather(device: torch.device, clock: Clock, sequences: int) -> None:
    clips = random_clips(sequences, device=device)
    keep = ops.select_visible(torch.tensor([1, 0], device=device), sequences, 750, 75)

    def run() -> torch.Tensor:
        return ops.patch_gather(clips, keep, patch_frames=4)

    every = clips.unflatten(1, (30, 4)).transpose(2, 3).reshape(sequences, 750, 12)
    assert torch.equal(run(), every.gather(1, keep.long()[..., None].expand(-1, -1, 12)))
    shape = [*clips.shape, 75]
    clock(run, op="patch_gather", shape=shape, dtype="float32", backend="reference")
