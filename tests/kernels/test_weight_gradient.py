"""The kernel of weight_gradient against float64, over both ways of loading tiles."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels import weight_gradient as module
from fastamr.kernels.launch import record

from fastamr import ops

from .rows import CASES, assert_exact_sums, matrix, path  # noqa: F401


@pytest.mark.parametrize(("dtype", "shape"), CASES)
@pytest.mark.usefixtures("path")
def test_sums(dtype: torch.dtype, shape: tuple[int, int, int], device: torch.device) -> None:
    rows, width, features = shape
    upstream, x = matrix(dtype, device, rows, features), matrix(dtype, device, rows, width)
    found = ops.weight_gradient(upstream, x)
    assert_exact_sums(found, upstream.double().T @ x.double())
    out = torch.full((features, width), float("nan"), device=device)
    assert ops.weight_gradient(upstream, x, out) is out
    assert torch.equal(out, found), "the same bits twice"


@pytest.mark.parametrize("rows", [0, 1, 511, 512, 513, 1000])
@pytest.mark.usefixtures("path")
def test_slices_cover_every_row_once(rows: int, device: torch.device) -> None:
    """Ones summed: a row that is left out or taken twice changes the count."""
    ones = torch.ones(rows, 16, device=device, dtype=torch.float16)
    assert (ops.weight_gradient(ones, ones) == rows).all()


def test_many_rows_are_sliced_and_few_are_not() -> None:
    grids = []
    for rows in (19200, 64):
        upstream, x = torch.empty(rows, 1024).bfloat16(), torch.empty(rows, 256).bfloat16()
        with record(90) as launches:
            module.weight_gradient(upstream, x, None)
        grids.append(launches[0].grid)
        share = launches[0].arguments["share"]
        assert share % launches[0].config.blocks["BLOCK_ROWS"] == 0
        assert (grids[-1][1] - 1) * share < rows <= grids[-1][1] * share
    assert grids == [(16, 16), (16, 1)]
