"""The guided loss of 125 target patches with its gradient, and SkeletonMAE's loss of 750 patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastamr import ops, reference
from fastamr.testing import random_clips

from ..conftest import Clock
from ..forms import FORMS, STAGES, at_stage, in_form, number_of_bytes

METHODS: dict[str, dict[str, Any]] = {
    "amr": {"target_frames": 24},
    "skeleton_mae": {"target_frames": 4, "target": "joints", "normalize": "none"},
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_weighted_reconstruction_loss(
    method: str, form: str, stage: str, device: torch.device, clock: Clock, sequences: int
) -> None:
    options = METHODS[method]
    clips = random_clips(sequences, device=device)
    patches = 120 // options["target_frames"] * 25
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    prediction = torch.randn(sequences, patches, options["target_frames"] * 3, device=device, dtype=dtype)
    prediction.requires_grad_()
    guidance = ops.motion_guidance(clips) if method == "amr" else None
    mask = torch.rand(sequences, patches, device=device) > 0.1 if method == "skeleton_mae" else None
    weights: dict[str, Any] = {"guidance": guidance, "token_mask": mask}

    function = in_form(
        form,
        device,
        lambda: ops.weighted_reconstruction_loss(prediction, clips, **weights, **options),
        lambda: reference.weighted_reconstruction_loss(prediction, clips, **weights, **options),
    )
    wide = prediction.detach().double().requires_grad_()
    exact = reference.weighted_reconstruction_loss(wide, clips.double(), **weights, **options)
    torch.testing.assert_close(function().double(), exact, rtol=1e-4, atol=0)
    (gradient,), (wanted,) = (
        torch.autograd.grad(value, x) for value, x in ((function(), prediction), (exact, wide))
    )
    torch.testing.assert_close(gradient.double(), wanted, rtol=2e-2, atol=1e-3 * wanted.abs().max().item())

    given = [value for value in weights.values() if value is not None]
    forward = number_of_bytes(prediction, clips, *given)
    moved = {"forward": forward, "backward": 2 * number_of_bytes(prediction)}.get(
        stage, forward + number_of_bytes(prediction)
    )
    run, name = at_stage(stage, function, [prediction]), "weighted_reconstruction_loss"
    clock(run, name, prediction.shape, dtype, form, bytes_moved=moved, method=method, stage=stage)
