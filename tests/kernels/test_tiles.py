"""Tiles at the edges of a matrix: zeros are read outside it and nothing is written there."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from fastamr.kernels.launch import Config, launch
from fastamr.kernels.tiles import aligned, as_tiles, load_tile, store_tile

ROWS, COLUMNS = 16, 32


@triton.jit
def _copy(
    source,  # (rows, columns), tiles (ROWS, COLUMNS)
    target,  # as source
    whole,  # (ROWS, COLUMNS): the tile as it was read
    row,
    column,
    rows,
    columns,
    TMA: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    tile = load_tile(source, row, column, rows, columns, ROWS, COLUMNS, TMA)
    store_tile(target, tile + 1, row, column, rows, columns, ROWS, COLUMNS, TMA)
    store_tile(whole, tile, 0, 0, ROWS, COLUMNS, ROWS, COLUMNS, False)


@pytest.mark.parametrize("tma", [True, False], ids=["descriptors", "pointers"])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (16, 32), (32, 0)])
@pytest.mark.parametrize("columns", [40, 37])
def test_outside_is_zero_and_stays_untouched(
    columns: int, row: int, column: int, tma: bool, device: torch.device
) -> None:
    rows = 21
    if tma and columns == 37:
        pytest.skip("descriptors need rows of a multiple of 16 bytes")
    # Larger buffers around both matrices: what lies behind them is not 0 and must not change.
    source, target = torch.full((2, 3 * rows * columns), 7.0, device=device)
    matrix, copy = (buffer[: rows * columns].view(rows, columns) for buffer in (source, target))
    matrix.copy_(torch.randn(rows, columns))
    whole = torch.full((ROWS, COLUMNS), float("nan"), device=device)
    launch(
        _copy,
        (1,),
        device,
        Config({"ROWS": ROWS, "COLUMNS": COLUMNS}),
        source=as_tiles(matrix, ROWS, COLUMNS, tma),
        target=as_tiles(copy, ROWS, COLUMNS, tma),
        whole=whole,
        row=row,
        column=column,
        rows=rows,
        columns=columns,
        TMA=tma,
    )
    expected = torch.zeros(ROWS, COLUMNS, device=device)
    inside = matrix[row : row + ROWS, column : column + COLUMNS]
    expected[: inside.shape[0], : inside.shape[1]] = inside
    assert torch.equal(whole, expected)
    changed = torch.full_like(copy, 7.0)
    changed[row : row + ROWS, column : column + COLUMNS] = inside + 1
    assert torch.equal(copy, changed)
    assert (target[rows * columns :] == 7).all()


def test_what_descriptors_can_address(device: torch.device) -> None:
    even, odd = torch.zeros(3, 8, device=device), torch.zeros(3, 7, device=device)
    assert aligned(even, None, even.half())
    assert not aligned(even, odd)
    assert not aligned(torch.zeros(3, 4, device=device).half()), "rows of 8 bytes"
    assert not aligned(even[:0])
    shifted = torch.zeros(25, device=device)[1:].view(3, 8)
    assert not aligned(shifted)
