"""The kernel draws bit for bit what the reference draws."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops


@pytest.mark.parametrize("sequences", [0, 1, 5])
@pytest.mark.parametrize("rates", [[], [0.5], [0.0, 0.1, 0.3, 0.5, 0.99], [0.4] * 24])
@pytest.mark.parametrize("seed", [(0, 0), (-(2**63), 2**40 + 7), (2**63 - 1, 3, 2**32 - 2)])
def test_same_bits(seed: tuple[int, ...], rates: list[float], sequences: int, device: torch.device) -> None:
    value = torch.tensor(seed)
    found = ops.drop_path_scales(value.to(device), rates, sequences, backend="triton")
    assert torch.equal(found.cpu(), ops.drop_path_scales(value, rates, sequences, backend="reference"))
