"""Motion energy and entropy of one window size."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops, reference
from fastamr.testing import random_clips

from ..conftest import Clock
from ..forms import FORMS, in_form, number_of_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("window", [4, 12])
def test_motion_entropy(window: int, form: str, device: torch.device, clock: Clock, sequences: int) -> None:
    clips = random_clips(sequences, device=device)
    run = in_form(
        form,
        device,
        lambda: ops.motion_entropy(clips, window=window),
        lambda: reference.motion_entropy(clips, window=window),
    )
    exact = clips.double().unflatten(1, (-1, window)).var(2, unbiased=False).sum(-1)
    energy, entropy = run()
    torch.testing.assert_close(energy.double(), exact, rtol=1e-3, atol=1e-9)
    moved = number_of_bytes(clips, energy, entropy)
    shape = [*clips.shape, window]
    clock(run, "motion_entropy", shape, "float32", form, bytes_moved=moved)
