"""Choosing 75 of 750 tokens: the op's reference, uniformly and by scores."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops

from .conftest import Clock


@pytest.mark.parametrize("scored", [False, True], ids=["uniform", "scores"])
def test_select_visible(scored: bool, device: torch.device, clock: Clock, sequences: int) -> None:
    seed = torch.tensor([1, 0], device=device)
    scores = torch.randn(sequences, 750, device=device) if scored else None

    def run() -> torch.Tensor:
        return ops.select_visible(seed, sequences, 750, 75, scores=scores)

    keep = run()
    assert keep.shape == (sequences, 75)
    assert (keep.diff(dim=1) > 0).all()
    cpu = ops.select_visible(seed.cpu(), sequences, 750, 75, scores=None if scores is None else scores.cpu())
    assert torch.equal(keep.cpu(), cpu), "every device makes the same choice"
    clock(run, op="select_visible", shape=[sequences, 750, 75], dtype="int32", backend="reference")
