"""Drawing which of an encoder's 16 branches each sequence keeps."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops, reference

from ..conftest import Clock
from ..forms import FORMS, in_form, number_of_bytes

RATES = [0.3 * layer / 7 for layer in range(8) for _ in range(2)]


@pytest.mark.parametrize("form", FORMS)
def test_drop_path_scales(form: str, device: torch.device, clock: Clock, sequences: int) -> None:
    seed = torch.tensor([1, 0], device=device)
    run = in_form(
        form,
        device,
        lambda: ops.drop_path_scales(seed, RATES, sequences),
        lambda: reference.drop_path_scales(seed, RATES, sequences),
    )
    scales = run()
    expected = reference.drop_path_scales(seed.cpu(), RATES, sequences)
    assert torch.equal(scales.cpu(), expected), "every device drops the same branches"
    shape = [len(RATES), sequences]
    clock(run, "drop_path_scales", shape, "float32", form, bytes_moved=number_of_bytes(scales))
