"""Gradient of a weight: each program sums one slice of the rows for one tile; the slices are added in a fixed order.

The tiles of a weight are far fewer than a GPU's multiprocessors, the rows are many: hence the slices (split-K). Their
sums are float32 and a second, small launch adds them, so results repeat bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, launch, pick
from .tiles import aligned, as_tiles, load_tile, moves_tiles, multiply, needs_upcast

# Programs that together fill a large GPU about twice, and the fewest blocks of rows that are worth a program.
_PROGRAMS = 256
_FEWEST_BLOCKS = 4


@triton.jit
def _weight_gradient(
    upstream,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_FEATURES)
    x,  # (rows, width), tiles (BLOCK_ROWS, BLOCK_WIDTH)
    parts,  # (slices, features, width) float32
    rows,
    features,
    width,
    share,  # rows of a slice, a multiple of BLOCK_ROWS
    TMA: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
):
    """One program: a tile of the weight's gradient, from one slice of the rows."""
    across = tl.cdiv(width, BLOCK_WIDTH)
    feature = tl.program_id(0) // across * BLOCK_FEATURES
    column = tl.program_id(0) % across * BLOCK_WIDTH
    first = tl.program_id(1) * share
    total = tl.zeros((BLOCK_FEATURES, BLOCK_WIDTH), tl.float32)
    for row in tl.range(first, tl.minimum(first + share, rows), BLOCK_ROWS):
        left = load_tile(upstream, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, TMA)
        right = load_tile(x, row, column, rows, width, BLOCK_ROWS, BLOCK_WIDTH, TMA)
        total = multiply(left.T, right, total, UPCAST)
    high, wide = feature + tl.arange(0, BLOCK_FEATURES), column + tl.arange(0, BLOCK_WIDTH)
    place = parts + (tl.program_id(1).to(tl.int64) * features + high[:, None]) * width + wide[None, :]
    tl.store(place, total, mask=(high < features)[:, None] & (wide < width)[None, :])


def _configs(x: Tensor, tma: bool) -> tuple[Config, ...]:
    """Tiles that compile without spills."""

    def config(rows: int, features: int, width: int, warps: int, stages: int) -> Config:
        blocks = {"BLOCK_ROWS": rows, "BLOCK_FEATURES": features, "BLOCK_WIDTH": width}
        return Config(blocks, num_warps=warps, num_stages=stages)

    if x.dtype == torch.float32:
        return (config(16, 64, 32, 4, 2),)
    if tma:
        return (config(64, 128, 128, 8, 3), config(64, 128, 256, 8, 3))
    return (config(32, 128, 128, 8, 3), config(64, 128, 128, 8, 2))


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
        tiles = triton.cdiv(features, tall) * triton.cdiv(width, wide)
        blocks = triton.cdiv(rows, deep)
        slices = max(min(_PROGRAMS // tiles, blocks // _FEWEST_BLOCKS), 1)
        share = max(triton.cdiv(blocks, slices), 1) * deep
        slices = max(triton.cdiv(rows, share), 1)
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

    shape_class = (features, width, x.dtype, tma)
    return run(pick("weight_gradient", shape_class, _configs(x, tma), run, x.device))
