"""Gathering the raw patches of 75 visible tokens."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops, reference
from fastamr.testing import random_clips

from ..conftest import Clock
from ..forms import FORMS, in_form, number_of_bytes


@pytest.mark.parametrize("form", FORMS)
def test_patch_gather(form: str, device: torch.device, clock: Clock, sequences: int) -> None:
    clips = random_clips(sequences, device=device)
    keep = ops.select_visible(torch.tensor([1, 0], device=device), sequences, 750, 75)
    run = in_form(
        form,
        device,
        lambda: ops.patch_gather(clips, keep, patch_frames=4),
        lambda: reference.patch_gather(clips, keep, patch_frames=4),
    )
    every = clips.unflatten(1, (30, 4)).transpose(2, 3).reshape(sequences, 750, 12)
    patches = run()
    assert torch.equal(patches, every.gather(1, keep.long()[..., None].expand(-1, -1, 12)))
    moved = 2 * number_of_bytes(patches) + number_of_bytes(keep)
    shape = [*clips.shape, 75]
    clock(run, "patch_gather", shape, "float32", form, bytes_moved=moved)
