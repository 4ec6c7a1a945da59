"""Motion energy and entropy of one window size."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops
from fastamr.testing import random_clips

from .conftest import Clock


@pytest.mark.parametrize("window", [4, 12])
def test_motion_entropy(window: int, device: torch.device, clock: Clock, sequences: int) -> None:
    clips = random_clips(sequences, device=device)

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        return ops.motion_entropy(clips, window=window)

    exact = clips.double().unflatten(1, (-1, window)).var(2, unbiased=False).sum(-1)
    torch.testing.assert_close(run()[0].double(), exact, rtol=1e-3, atol=1e-9)
    shape = [*clips.shape, window]
    clock(run, op="motion_entropy", shape=shape, dtype="float32", backend="reference")
