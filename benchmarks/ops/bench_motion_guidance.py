"""The fused guidance map of windows 4, 8 and 12 in its three forms."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops, reference
from fastamr.ops.motion_guidance import KINDS
from fastamr.testing import random_clips

from ..conftest import Clock
from ..forms import FORMS, in_form, number_of_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_motion_guidance(kind: str, form: str, device: torch.device, clock: Clock, sequences: int) -> None:
    clips = random_clips(sequences, device=device)
    run = in_form(
        form,
        device,
        lambda: ops.motion_guidance(clips, kind=kind),
        lambda: reference.motion_guidance(clips, kind=kind),
    )
    guidance = run()
    difference = (guidance - reference.motion_guidance(clips.double(), kind=kind)).abs()
    # A displacement on the edge of a histogram's bin may fall to either side in float32.
    assert difference.mean() < 1e-3
    assert kind == "histogram" or difference.max() < 1e-3
    moved = number_of_bytes(clips, guidance)
    clock(run, "motion_guidance", clips.shape, "float32", form, bytes_moved=moved, kind=kind)
