"""Embedding the 75 visible of 750 patches, forward and forward + backward, against embedding all and gathering."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.testing import random_clips

from .conftest import Clock


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("form", ["reference", "embed all, then gather"])
def test_masked_patch_gather(
    form: str, backward: bool, device: torch.device, clock: Clock, sequences: int
) -> None:
    clips = random_clips(sequences, device=device)
    keep = ops.select_visible(torch.tensor([1, 0], device=device), sequences, 750, 75)
    parameters = [
        torch.randn(shape, device=device).requires_grad_() for shape in ((256, 12), (256,), (750, 256))
    ]

    def gathered() -> torch.Tensor:
        return ops.masked_patch_gather(clips, keep, *parameters, patch_frames=4)

    def embedded() -> torch.Tensor:
        weight, bias, position = parameters
        patches = clips.unflatten(1, (30, 4)).transpose(2, 3).reshape(sequences, 750, 12)
        tokens = F.linear(patches, weight, bias) + position
        return tokens.gather(1, keep.long()[..., None].expand(-1, -1, 256))

    torch.testing.assert_close(gathered(), embedded(), rtol=1e-4, atol=1e-4)
    function: Callable[[], torch.Tensor] = gathered if form == "reference" else embedded
    upstream = torch.randn(sequences, 75, 256, device=device)

    def run() -> object:
        tokens = function()
        return torch.autograd.grad(tokens, parameters, upstream) if backward else tokens

    clock(
        run,
        op="masked_patch_gather",
        shape=[*clips.shape, 75, 256],
        dtype="float32",
        backend=form,
        backward=backward,
    )
