"""Choosing 75 of 750 tokens, uniformly and by scores."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops, reference

from ..conftest import Clock
from ..forms import FORMS, in_form, number_of_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scored", [False, True], ids=["uniform", "scores"])
def test_select_visible(scored: bool, form: str, device: torch.device, clock: Clock, sequences: int) -> None:
    seed = torch.tensor([1, 0], device=device)
    scores = torch.randn(sequences, 750, device=device) if scored else None
    run = in_form(
        form,
        device,
        lambda: ops.select_visible(seed, sequences, 750, 75, scores=scores),
        lambda: reference.select_visible(seed, sequences, 750, 75, scores=scores)[0],
    )
    keep = run()
    assert keep.shape == (sequences, 75)
    assert (keep.diff(dim=1) > 0).all()
    on_cpu = None if scores is None else scores.cpu()
    expected, *_ = reference.select_visible(seed.cpu(), sequences, 750, 75, scores=on_cpu)
    assert torch.equal(keep.cpu(), expected), "every device makes the same choice"
    moved = number_of_bytes(keep) + (number_of_bytes(scores) if scores is not None else 0)
    shape = [sequences, 750, 75]
    clock(run, "select_visible", shape, "int32", form, bytes_moved=moved)
