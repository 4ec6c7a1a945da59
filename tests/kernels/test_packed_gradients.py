"""Gradients of attention written side by side: the same numbers at their places, and exact column sums."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels.packed_gradients import packed_gradients

from fastamr import ops

from .rows import assert_exact_sums, matrix


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
# (S, N, P, H, E): a single row, rows that fill no tile, heads that are no power of two, one, two and three inputs.
@pytest.mark.parametrize("shape", [(1, 1, 3, 2, 16), (3, 37, 3, 3, 24), (5, 50, 2, 8, 32), (2, 70, 1, 1, 7)])
@pytest.mark.parametrize("later", [False, True])
def test_side_by_side(dtype: torch.dtype, shape: tuple[int, ...], later: bool, device: torch.device) -> None:
    sequences, tokens, count, heads, size = shape
    plain = matrix(dtype, device, count, sequences, heads, tokens, size)
    # Half of the inputs as attention kernels leave them: heads inside tokens.
    found = [
        part if place % 2 else part.transpose(1, 2).contiguous().transpose(1, 2)
        for place, part in enumerate(plain)
    ]
    # A slice of a larger buffer, as a stack's keys and values have it.
    buffer = torch.full((sequences, tokens, 3, count, heads, size), 7.0, device=device, dtype=dtype)
    columns = ops.ColumnSums(2) if later else None
    sums = packed_gradients(found, buffer[:, :, 1], columns)
    if columns is not None:
        columns.finish()
    assert torch.equal(buffer[:, :, 1], plain.permute(1, 3, 0, 2, 4))
    assert (buffer[:, :, [0, 2]] == 7).all()
    assert_exact_sums(sums, plain.double().sum((1, 3)).flatten())


def test_without_sequences(device: torch.device) -> None:
    target = torch.zeros(0, 5, 3, 2, 16, device=device)
    sums = packed_gradients([torch.zeros(0, 2, 5, 16, device=device)] * 3, target)
    assert torch.equal(sums, torch.zeros(96, device=device))
