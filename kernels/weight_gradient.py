"""Gradient of a weight: each program sums one slice of the rows for one tile; the slices are added in a fixed order.

The tiles of a weight are far fewer than a GPU's multiprocessors, the rows are many: hence the slices (split-K). Their
sums are float32 and a second, small launch adds them, so results repeat bit for bit. The weights of a layer fill a GPU
better together than one after the other: a group of four is one launch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, architecture, launch, pick, row_class
from .tiles import aligned, as_tiles, load_tile, moves_tiles, multiply, needs_upcast

# Programs that together fill a large GPU about twice, and the fewest blocks of rows that are worth a program.
_PROGRAMS = 256
_FEWEST_BLOCKS = 4
# Weights in one launch, and the multiple (in elements) at which each of their gradients starts.
_GROUP = 4
_APART = 64


@triton.jit
def _sum_tile(
    upstream,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_FEATURES)
    x,  # (rows, width), tiles (BLOCK_ROWS, BLOCK_WIDTH)
    target,  # (features, width) float32
    rows, features, width, tile, first, last,
    TMA: tl.constexpr, UPCAST: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    """Write one tile of ``upstream.T @ x`` over the rows from ``first`` up to ``last``."""
    across = tl.cdiv(width, BLOCK_WIDTH)
    feature = tile // across * BLOCK_FEATURES
    column = tile % across * BLOCK_WIDTH
    total = tl.zeros((BLOCK_FEATURES, BLOCK_WIDTH), tl.float32)
    for row in tl.range(first, tl.minimum(last, rows), BLOCK_ROWS):
        left = load_tile(upstream, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, TMA)
        right = load_tile(x, row, column, rows, width, BLOCK_ROWS, BLOCK_WIDTH, TMA)
        total = multiply(left.T, right, total, UPCAST)
    high, wide = feature + tl.arange(0, BLOCK_FEATURES), column + tl.arange(0, BLOCK_WIDTH)
    place = target + high.to(tl.int64)[:, None] * width + wide[None, :]
    tl.store(place, total, mask=(high < features)[:, None] & (wide < width)[None, :])


@triton.jit
def _weight_gradient(
    upstream,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_FEATURES)
    x,  # (rows, width), tiles (BLOCK_ROWS, BLOCK_WIDTH)
    parts,  # (slices, features, width) float32
    rows, features, width,
    share,  # rows of a slice, a multiple of BLOCK_ROWS
    TMA: tl.constexpr, UPCAST: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    """One program: a tile of the weight's gradient, from one slice of the rows."""
    target = parts + tl.program_id(1).to(tl.int64) * features * width
    first = tl.program_id(1) * share
    _sum_tile(
        upstream, x, target, rows, features, width, tl.program_id(0), first, first + share,
        TMA, UPCAST, BLOCK_ROWS, BLOCK_FEATURES, BLOCK_WIDTH,
    )  # fmt: skip


@triton.jit
def _weight_gradients(
    # Of each weight: upstream (rows, features), x (rows, width), rows of a slice, first tile, first value in a slice.
    upstream0, x0, rows0, features0, width0, share0,
    upstream1, x1, rows1, features1, width1, share1, tile1, place1,
    upstream2, x2, rows2, features2, width2, share2, tile2, place2,
    upstream3, x3, rows3, features3, width3, share3, tile3, place3,
    parts,  # (slices, length) float32: in a slice the weights one after the other
    length,
    TMA: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):  # fmt: skip
    """One program: a tile of one of four weights' gradients, from one slice of that weight's rows."""
    tile, cut = tl.program_id(0), tl.program_id(1)
    target = parts + cut.to(tl.int64) * length
    # Not elif: nested branches do not share the buffers of their loops, which costs a second program on each
    # multiprocessor (98 KB become 197 KB).
    if tile < tile1:
        _sum_tile(
            upstream0, x0, target, rows0, features0, width0, tile, cut * share0, (cut + 1) * share0,
            TMA, UPCAST, BLOCK_ROWS, BLOCK_FEATURES, BLOCK_WIDTH,
        )  # fmt: skip
    if (tile >= tile1) & (tile < tile2):
        _sum_tile(
            upstream1, x1, target + place1, rows1, features1, width1, tile - tile1, cut * share1,
            (cut + 1) * share1, TMA, UPCAST, BLOCK_ROWS, BLOCK_FEATURES, BLOCK_WIDTH,
        )  # fmt: skip
    if (tile >= tile2) & (tile < tile3):
        _sum_tile(
            upstream2, x2, target + place2, rows2, features2, width2, tile - tile2, cut * share2,
            (cut + 1) * share2, TMA, UPCAST, BLOCK_ROWS, BLOCK_FEATURES, BLOCK_WIDTH,
        )  # fmt: skip
    if tile >= tile3:
        _sum_tile(
            upstream3, x3, target + place3, rows3, features3, width3, tile - tile3, cut * share3,
            (cut + 1) * share3, TMA, UPCAST, BLOCK_ROWS, BLOCK_FEATURES, BLOCK_WIDTH,
        )  # fmt: skip


def _configs(x: Tensor, tma: bool) -> tuple[Config, ...]:
    """Tiles that compile without spills."""

    def config(rows: int, features: int, width: int, warps: int, stages: int) -> Config:
        blocks = {"BLOCK_ROWS": rows, "BLOCK_FEATURES": features, "BLOCK_WIDTH": width}
        return Config(blocks, num_warps=warps, num_stages=stages)

    if x.dtype == torch.float32:
        return (config(16, 64, 32, 4, 2),)
    if tma and architecture(x.device) < 100:
        return (config(64, 128, 128, 8, 3), config(64, 128, 256, 8, 3))
    if tma:
        return (config(64, 128, 128, 8, 3), config(64, 128, 128, 8, 2))
    return (config(32, 128, 128, 8, 3), config(32, 128, 128, 8, 2))


def _share(rows: int, slices: int, deep: int) -> int:
    """Rows of a slice, whole blocks."""
    return max(triton.cdiv(triton.cdiv(rows, deep), slices), 1) * deep


def _split(rows: int, tiles: int, deep: int) -> tuple[int, int]:
    """In how many slices the rows are summed where that many tiles take part, and the rows of a slice."""
    slices = max(min(_PROGRAMS // max(tiles, 1), triton.cdiv(rows, deep) // _FEWEST_BLOCKS), 1)
    share = _share(rows, slices, deep)
    return max(triton.cdiv(rows, share), 1), share


def _tiles(features: int, width: int, config: Config) -> int:
    blocks = config.blocks
    return triton.cdiv(features, blocks["BLOCK_FEATURES"]) * triton.cdiv(width, blocks["BLOCK_WIDTH"])


def weight_gradient(upstream: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
    """``upstream.T @ x (F, D)`` float32, in ``out`` if given.

    Args:
        upstream: ``(M, F)`` float16, bfloat16 or float32, contiguous.
        x: ``(M, D)`` of the same dtype, contiguous.
        out: ``(F, D)`` float32, contiguous.
    """
    (rows, features), width = upstream.shape, x.shape[1]
    tma = moves_tiles(x.device) and aligned(upstream, x)

    def run(config: Config) -> Tensor:
        deep, tall, wide = config.blocks.values()
        tiles = _tiles(features, width, config)
        slices, share = _split(rows, tiles, deep)
        result = x.new_empty((features, width), dtype=torch.float32) if out is None else out
        parts = result[None] if slices == 1 else result.new_empty((slices, features, width))
        launch(
            _weight_gradient,
            (tiles, slices),
            x.device,
            config,
            upstream=as_tiles(upstream, deep, tall, tma),
            x=as_tiles(x, deep, wide, tma),
            parts=parts,
            rows=rows,
            features=features,
            width=width,
            share=share,
            TMA=tma,
            UPCAST=needs_upcast(x),
        )
        return result if slices == 1 else torch.sum(parts, 0, out=result)

    shape_class = (features, width, x.dtype, tma, row_class(rows))
    return run(pick("weight_gradient", shape_class, _configs(x, tma), run, x.device))


def weight_gradients(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """``upstream.T @ x (F, D)`` float32 of each pair: one launch for every four, and one that adds their slices.

    Args:
        pairs: ``upstream (M, F)`` and ``x (M, D)``, float16, bfloat16 or float32, contiguous, all of one dtype on one
            device; M, F and D may differ from pair to pair.

    Returns:
        Contiguous views of one buffer for every four pairs, each at a multiple of 256 bytes in it.
    """
    return [
        result for start in range(0, len(pairs), _GROUP) for result in _group(pairs[start : start + _GROUP])
    ]


def _slots(
    pairs: Sequence[tuple[Tensor, Tensor]], places: list[int], config: Config, tma: bool
) -> tuple[tuple[int, int], dict[str, object]]:
    """Grid of a group, and what the kernel is given of its four weights.

    Every weight has as many slices; those that begin behind a weight's last row hold zeros. A slot without a pair of
    its own repeats the first one and begins behind the last tile.
    """
    deep, tall, wide = config.blocks.values()
    counts = [_tiles(upstream.shape[1], x.shape[1], config) for upstream, x in pairs]
    firsts, tiles = [0, *itertools.accumulate(counts)], sum(counts)
    slices, _ = _split(max(x.shape[0] for _, x in pairs), tiles, deep)
    given: dict[str, object] = {}
    for slot in range(_GROUP):
        used = slot < len(pairs)
        upstream, x = pairs[slot if used else 0]
        given[f"upstream{slot}"] = as_tiles(upstream, deep, tall, tma)
        given[f"x{slot}"] = as_tiles(x, deep, wide, tma)
        given[f"rows{slot}"], given[f"features{slot}"] = upstream.shape
        given[f"width{slot}"] = x.shape[1]
        given[f"share{slot}"] = _share(x.shape[0], slices, deep)
        if slot > 0:
            given[f"tile{slot}"] = firsts[slot] if used else tiles
            given[f"place{slot}"] = places[slot] if used else 0
    return (tiles, slices), given


def _group(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """At most four gradients."""
    like = pairs[0][1]
    tma = moves_tiles(like.device) and all(aligned(*pair) for pair in pairs)
    shapes = [(upstream.shape[1], x.shape[1]) for upstream, x in pairs]
    lengths = [triton.cdiv(features * width, _APART) * _APART for features, width in shapes]
    places, length = [0, *itertools.accumulate(lengths)], sum(lengths)

    def run(config: Config) -> list[Tensor]:
        (tiles, slices), given = _slots(pairs, places, config, tma)
        flat = like.new_empty(length, dtype=torch.float32)
        parts = flat[None] if slices == 1 else flat.new_empty((slices, length))
        given |= {"parts": parts, "length": length, "TMA": tma, "UPCAST": needs_upcast(like)}
        launch(_weight_gradients, (tiles, slices), like.device, config, **given)
        if slices > 1:
            torch.sum(parts, 0, out=flat)
        return [
            flat[place : place + features * width].view(features, width)
            for place, (features, width) in zip(places, shapes, strict=False)
        ]

    shape_class = (*shapes, like.dtype, tma, row_class(len(like)))
    return run(pick("weight_gradients", shape_class, _configs(like, tma), run, like.device))
