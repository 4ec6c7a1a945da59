"""Every model gives the same loss and gradients on the Triton kernels as on the reference."""

from __future__ import annotations

import pytest
import torch

import fastamr
from fastamr import models
from fastamr.testing import random_clips

from ..interpreter import quicken_interpreter

quicken_interpreter()

SMALL = {
    "frames": 24, "width": 16, "depth": 1, "heads": 2,
    "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip


@pytest.mark.thinned
@pytest.mark.parametrize("name", ["AMRModel", "SkeletonMAEModel", "MAMPModel"])
@pytest.mark.parametrize("masked", [False, True], ids=["complete", "missing joints"])
def test_loss_and_gradients(name: str, masked: bool) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(models, name)(layout="ntu25", **SMALL).to(device)
    clips, seed = random_clips(3, 24, 25, device=device), torch.tensor([7, 1], device=device)
    valid = torch.rand(3, 24, 25, device=device) > 0.1 if masked else None
    results = []
    for backend in ("reference", "triton"):
        with fastamr.backend(backend, visible_attention="sdpa"):
            loss = model(clips, seed=seed, valid=valid)
            results.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-6)
