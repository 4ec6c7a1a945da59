"""Embedding the 75 visible of 750 patches, against the reference and against embedding all, then gathering."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops, reference
from fastamr.testing import random_clips

from ..conftest import Clock
from ..forms import FORMS, STAGES, at_stage, in_form, number_of_bytes


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("form", [*FORMS, "embed all, then gather"])
def test_masked_patch_gather(
    form: str, stage: str, device: torch.device, clock: Clock, sequences: int
) -> None:
    clips = random_clips(sequences, device=device)
    keep = ops.select_visible(torch.tensor([1, 0], device=device), sequences, 750, 75)
    weight, bias, position = parameters = [
        torch.randn(shape, device=device).requires_grad_() for shape in ((256, 12), (256,), (750, 256))
    ]

    def embedded() -> torch.Tensor:
        patches = clips.unflatten(1, (30, 4)).transpose(2, 3).reshape(sequences, 750, 12)
        tokens = F.linear(patches, weight, bias) + position
        return tokens.gather(1, keep.long()[..., None].expand(-1, -1, 256))

    function = embedded
    if form in FORMS:
        function = in_form(
            form,
            device,
            lambda: ops.masked_patch_gather(clips, keep, weight, bias, position, patch_frames=4),
            lambda: reference.masked_patch_gather(clips, keep, weight, bias, position, patch_frames=4),
        )
    exact = reference.masked_patch_gather(
        clips.double(), keep, weight.double(), bias.double(), position.double(), patch_frames=4
    )
    upstream = torch.randn(sequences, 75, 256, device=device)
    torch.testing.assert_close(function().double(), exact, rtol=1e-4, atol=1e-4)
    gradients = torch.autograd.grad(function(), parameters, upstream)
    wanted = torch.autograd.grad(exact, parameters, upstream.double())
    torch.testing.assert_close(gradients, wanted, rtol=1e-3, atol=1e-2, check_dtype=False)

    patches, table = sequences * 75 * 12 * 4, number_of_bytes(weight, bias, position)
    forward = patches + table + number_of_bytes(keep, upstream)
    moved = {"forward": forward, "backward": forward, "both": 2 * forward}[stage]
    run, shape = at_stage(stage, function, parameters, upstream), [*clips.shape, 75, 256]
    clock(run, "masked_patch_gather", shape, "float32", form, bytes_moved=moved, stage=stage)
