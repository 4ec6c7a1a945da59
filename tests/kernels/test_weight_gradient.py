"""The kernel of weight_gradient against float64, over both ways of loading tiles."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels import weight_gradient as module
from fastamr.kernels.launch import record

from fastamr import ops

from .repeats import assert_repeats
from .rows import CASES, assert_exact_sums, matrix, path  # noqa: F401


@pytest.mark.thinned
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


# (M, D, F) of each weight: a layer with queries that all sequences share, five weights and one, rows that fill no
# slice, single numbers, rows that are no multiple of 16 bytes.
GROUPS = [
    ("float16", [(300, 32, 96), (300, 96, 32), (300, 32, 32), (9, 32, 32)]),
    ("bfloat16", [(300, 24, 200), (300, 200, 24), (300, 24, 24), (300, 24, 72), (300, 24, 48)]),
    ("float32", [(65, 33, 50), (1, 1, 1), (17, 5, 130), (40, 130, 3)]),
    ("float32", [(130, 24, 72)]),
    ("float16", [(700, 8, 8), (1, 136, 1), (0, 8, 16)]),
]


@pytest.mark.thinned
@pytest.mark.parametrize(("kind", "shapes"), GROUPS)
@pytest.mark.usefixtures("path")
def test_groups(kind: str, shapes: list[tuple[int, int, int]], device: torch.device) -> None:
    dtype = getattr(torch, kind)
    pairs = [(matrix(dtype, device, m, f), matrix(dtype, device, m, d)) for m, d, f in shapes]
    assert ops.groups_weight_gradients(pairs[0][0], [(f, d) for _, d, f in shapes])
    found = ops.weight_gradients(pairs)
    for value, (upstream, x) in zip(found, pairs, strict=True):
        assert value.is_contiguous()
        assert value.storage_offset() % 64 == 0, "vector loads of whoever reads the gradients"
        exact = upstream.double().T @ x.double()
        if len(x):
            assert_exact_sums(value, exact)
        else:
            assert (value == 0).all()
    assert_repeats(found, lambda: ops.weight_gradients(pairs))


@pytest.mark.parametrize("rows", [(0, 1, 511, 512), (513, 1000, 513, 7)])
@pytest.mark.usefixtures("path")
def test_slices_of_a_group_cover_every_row_once(rows: tuple[int, ...], device: torch.device) -> None:
    ones = [torch.ones(count, 16, device=device, dtype=torch.float16) for count in rows]
    for value, count in zip(ops.weight_gradients([(each, each) for each in ones]), rows, strict=True):
        assert (value == count).all()


def test_a_layer_is_one_launch_that_fills_the_device() -> None:
    narrow, wide = torch.empty(19200, 256).bfloat16(), torch.empty(19200, 1024).bfloat16()
    qkv, few = torch.empty(19200, 768).bfloat16(), torch.empty(125, 256).bfloat16()
    pairs = [(narrow, wide), (wide, narrow), (narrow, narrow), (qkv, narrow)]
    for last, tiles in ((pairs[-1], 12), ((few, few), 4)):
        with record(90) as launches:
            module.weight_gradients([*pairs[:3], last])
        (launched,) = launches
        assert launched.kernel.__name__ == "_weight_gradients"
        assert launched.grid == (36 + tiles, 256 // (36 + tiles))
        given = launched.arguments
        assert [given[f"tile{slot}"] for slot in (1, 2, 3)] == [16, 32, 36]
        for slot in range(4):
            assert given[f"share{slot}"] * launched.grid[1] >= given[f"rows{slot}"]
            assert given[f"share{slot}"] % launched.config.blocks["BLOCK_ROWS"] == 0
    with record(90) as launches:
        module.weight_gradients([*pairs, *pairs[:1]])
    assert [launched.grid[0] for launched in launches] == [48, 16]
