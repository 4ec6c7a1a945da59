"""The guided loss of 125 target patches with its gradient, and SkeletonMAE's loss of 750 patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastamr import ops
from fastamr.testing import random_clips

from .conftest import Clock

FORMS: dict[str, dict[str, Any]] = {
    "amr": {"target_frames": 24},
    "skeleton_mae": {"target_frames": 4, "target": "joints", "normalize": "patch"},
}


@pytest.mark.parametrize("form", FORMS)
def test_weighted_reconstruction_loss(form: str, device: torch.device, clock: Clock, sequences: int) -> None:
    options = FORMS[form]
    clips = random_clips(sequences, device=device)
    patches = 120 // options["target_frames"] * 25
    prediction = torch.randn(sequences, patches, options["target_frames"] * 3, device=device).requires_grad_()
    guidance = ops.motion_guidance(clips) if form == "amr" else None
    mask = torch.rand(sequences, patches, device=device) > 0.1 if form == "skeleton_mae" else None

    def loss(p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return ops.weighted_reconstruction_loss(p, x, guidance=guidance, token_mask=mask, **options)

    def run() -> object:
        return torch.autograd.grad(loss(prediction, clips), prediction)

    exact = loss(prediction.double(), clips.double())
    torch.testing.assert_close(loss(prediction, clips).double(), exact, rtol=1e-4, atol=0)
    clock(
        run,
        op="weighted_reconstruction_loss",
        shape=list(prediction.shape),
        dtype="float32",
        backend="reference",
        form=form,
        backward=True,
    )
