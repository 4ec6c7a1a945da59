"""Every augmentation beyond crop and rotation at once, and mirroring and scale alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastamr import ops, reference

from ..conftest import Clock
from ..forms import FORMS, in_form, number_of_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("all_on", [False, True], ids=["mirror and scale", "all"])
def test_augment_clips(all_on: bool, form: str, device: torch.device, clock: Clock, sequences: int) -> None:
    clips = torch.randn(sequences, 120, 25, 3, device=device)
    joints = torch.arange(25, device=device)
    seed = torch.tensor([1, 0], device=device)
    options: dict[str, Any] = {
        "mirror": 0.5,
        "partners": joints.flip(0),
        "scale_jitter": 0.2,
        "drop_limbs": 0.2 if all_on else 0.0,
        "limbs": joints % 6 - 1,
        "patch_frames": 4,
        "visible": 75,
        "noise": 0.01 if all_on else 0.0,
        "project": 0.3 if all_on else 0.0,
        "flat": None,
        "group": joints.new_zeros(sequences),
        "numbers": None,
    }
    run = in_form(
        form,
        device,
        lambda: ops.augment_clips(clips, seed, **options)[0],
        lambda: reference.augment_clips(clips, None, seed, **options)[0],
    )
    few = {**options, "group": options["group"][:4].cpu(), "partners": joints.flip(0).cpu()}
    few["limbs"] = options["limbs"].cpu()
    exact, _ = reference.augment_clips(clips[:4].double().cpu(), None, seed.cpu(), **few)
    found = run()
    torch.testing.assert_close(found[:4].cpu().double(), exact, rtol=1e-3, atol=1e-4)
    moved = 2 * number_of_bytes(clips) + (number_of_bytes(clips) // 12 if all_on else 0)
    name = "all" if all_on else "mirror and scale"
    clock(run, "augment_clips", [sequences, 120, 25, 3], "float32", form, bytes_moved=moved, options=name)
