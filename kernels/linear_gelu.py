"""Linear layer with GELU and its slope in the product's epilogue, and the backward whose epilogue is one multiply.

Each program owns a tile of the result. The backward also sums the tile's columns; the tiles' sums are added by a small
second launch, in a fixed order. The formulas are in :mod:`fastamr.reference.rows.linear_gelu`. :func:`gelu_rows` and
:func:`gelu_backward_rows` are the same epilogues as passes over a product that a library made.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import Columns, Parts
from .launch import Config, launch, pick, row_class
from .tiles import aligned, as_tiles, load_tile, moves_tiles, needs_upcast, product_tile, store_tile

# The tanh form as sigmoid(2a) = 1 / (1 + 2^(-2a / ln 2)), a the polynomial of the reference.
_FIRST: tl.constexpr = tl.constexpr(2 * 0.797378)
_THIRD: tl.constexpr = tl.constexpr(2 * 0.037172)
_FIFTH: tl.constexpr = tl.constexpr(2 * -0.00037988)
_LIMIT: tl.constexpr = tl.constexpr(64.0)
_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
_SQRT_HALF: tl.constexpr = tl.constexpr(0.7071067811865476)
_DENSITY: tl.constexpr = tl.constexpr(0.3989422804014327)


@triton.jit
def gelu_and_slope(u, TANH: tl.constexpr):
    """GELU and its derivative: the tanh form within 4.8e-5, or the exact one."""
    if TANH:
        square = tl.minimum(u * u, _LIMIT)
        inner = u * ((square * _FIFTH + _THIRD) * square + _FIRST)
        cdf = 1.0 / (1.0 + tl.exp2(inner * -_LOG2_E))
        density = cdf * (1.0 - cdf) * ((square * (5 * _FIFTH) + 3 * _THIRD) * square + _FIRST)
    else:
        cdf = 0.5 + 0.5 * tl.math.erf(u * _SQRT_HALF)
        density = tl.exp(-0.5 * u * u) * _DENSITY
    h = u * cdf
    return h, cdf + u * density


@triton.jit
def _linear_gelu(
    x,  # (rows, width), tiles (BLOCK_ROWS, BLOCK_INNER)
    weight,  # (features, width), tiles (BLOCK_FEATURES, BLOCK_INNER)
    bias,  # (features,) floating
    h,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_FEATURES)
    slope,  # as h; or None
    rows, width, features,
    TANH: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    BLOCK_FEATURES: tl.constexpr, BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    """One program: a tile of h; neighbours share rows of x."""
    across = tl.cdiv(features, BLOCK_FEATURES)
    row = tl.program_id(0) // across * BLOCK_ROWS
    feature = tl.program_id(0) % across * BLOCK_FEATURES
    u = product_tile(
        x, weight, row, feature, rows, width, features, True, BLOCK_ROWS, BLOCK_FEATURES, BLOCK_INNER, TMA, UPCAST
    )  # fmt: skip
    column = feature + tl.arange(0, BLOCK_FEATURES)
    u += tl.load(bias + column, mask=column < features, other=0.0).to(tl.float32)[None, :]
    values, derivative = gelu_and_slope(u, TANH)
    store_tile(h, values, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, TMA)
    if slope is not None:
        store_tile(slope, derivative, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, TMA)


@triton.jit
def _linear_gelu_backward(
    upstream,  # (rows, width), tiles (BLOCK_ROWS, BLOCK_INNER)
    weight,  # (width, features), tiles (BLOCK_INNER, BLOCK_FEATURES)
    slope,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_FEATURES)
    du,  # as slope
    sums,  # (blocks of rows, features) float32
    rows, width, features,
    TMA: tl.constexpr, UPCAST: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    """One program: a tile of du and its column sums. Rows outside are 0, so they add nothing."""
    across = tl.cdiv(features, BLOCK_FEATURES)
    block = tl.program_id(0) // across
    row = block * BLOCK_ROWS
    feature = tl.program_id(0) % across * BLOCK_FEATURES
    values = product_tile(
        upstream, weight, row, feature, rows, width, features, False, BLOCK_ROWS, BLOCK_FEATURES, BLOCK_INNER, TMA,
        UPCAST,
    )  # fmt: skip
    values *= load_tile(slope, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, TMA).to(tl.float32)
    store_tile(du, values, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, TMA)
    column = feature + tl.arange(0, BLOCK_FEATURES)
    tl.store(sums + block.to(tl.int64) * features + column, tl.sum(values, 0), mask=column < features)


def _blocks(rows: int, features: int, inner: int) -> dict[str, int]:
    return {"BLOCK_ROWS": rows, "BLOCK_FEATURES": features, "BLOCK_INNER": inner}


def _configs(x: Tensor, tma: bool, even: bool) -> tuple[Config, ...]:
    """Tiles that compile without spills; on Hopper two or three of them share a multiprocessor."""
    if x.dtype == torch.float32:
        return (Config(_blocks(32, 64, 16), num_warps=4, num_stages=2),)
    if not even:
        return (Config(_blocks(64, 64, 32), num_warps=4, num_stages=2),)
    deep = 64 if tma else 32
    return (
        Config(_blocks(128, 128, deep), num_warps=8, num_stages=3),
        Config(_blocks(64, 128, deep), num_warps=4, num_stages=3),
    )


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, *, slope: bool) -> tuple[Tensor, Tensor | None]:
    """``h (M, F)`` and, if asked for, the slope ``(M, F)``, both of x's dtype.

    Args:
        x: ``(M, D)`` float16, bfloat16 or float32, contiguous like every argument.
        weight: ``(F, D)`` of the same dtype.
        bias: ``(F,)`` floating.
        slope: whether to write the slope.
    """
    (rows, width), features = x.shape, weight.shape[0]
    h = x.new_empty((rows, features))
    derivative = torch.empty_like(h) if slope else None
    even = aligned(x, weight, h, derivative)
    tma = even and moves_tiles(x.device)

    def run(config: Config) -> None:
        tall, wide, deep = config.blocks.values()
        launch(
            _linear_gelu,
            (triton.cdiv(rows, tall) * triton.cdiv(features, wide),),
            x.device,
            config,
            x=as_tiles(x, tall, deep, tma),
            weight=as_tiles(weight, wide, deep, tma),
            bias=bias,
            h=as_tiles(h, tall, wide, tma),
            slope=as_tiles(derivative, tall, wide, tma),
            rows=rows,
            width=width,
            features=features,
            TANH=x.dtype.itemsize == 2,
            TMA=tma,
            UPCAST=needs_upcast(x),
        )

    shape_class = (width, features, x.dtype, tma, even, slope, row_class(rows))
    run(pick("linear_gelu", shape_class, _configs(x, tma, even), run, x.device))
    return h, derivative


def linear_gelu_backward(
    upstream: Tensor, weight: Tensor, slope: Tensor, columns: Columns | None = None
) -> tuple[Tensor, Tensor]:
    """``du (M, F)`` of upstream's dtype and its column sums ``(F,)`` float32.

    Args:
        upstream: ``(M, D)`` float16, bfloat16 or float32, contiguous like every argument.
        weight: ``(D, F)`` of the same dtype.
        slope: ``(M, F)`` of the same dtype.
        columns: adds the column sums up later; None adds them up now.
    """
    (rows, width), features = upstream.shape, weight.shape[1]
    du = torch.empty_like(slope)
    even = aligned(upstream, weight, slope, du)
    tma = even and moves_tiles(upstream.device)

    def run(config: Config, later: Columns | None = None) -> Tensor:
        tall, wide, deep = config.blocks.values()
        blocks = triton.cdiv(rows, tall)
        sums = Parts(later, upstream, blocks, features)
        launch(
            _linear_gelu_backward,
            (blocks * triton.cdiv(features, wide),),
            upstream.device,
            config,
            upstream=as_tiles(upstream, tall, deep, tma),
            weight=as_tiles(weight, deep, wide, tma),
            slope=as_tiles(slope, tall, wide, tma),
            du=as_tiles(du, tall, wide, tma),
            sums=sums.parts,
            rows=rows,
            width=width,
            features=features,
            TMA=tma,
            UPCAST=needs_upcast(upstream),
        )
        return sums.added()

    shape_class = (width, features, upstream.dtype, tma, even, row_class(rows))
    configs = _configs(upstream, tma, even)
    return du, run(pick("linear_gelu_backward", shape_class, configs, run, upstream.device), columns)


@triton.jit
def _gelu_rows(
    product,  # (rows, features) contiguous
    bias,  # (features,) floating
    h,  # as product, may be the same memory
    slope,  # as product; or None
    rows, features,
    TANH: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
):  # fmt: skip
    """One program: a tile of h."""
    row, feature = tl.program_id(0) * BLOCK_ROWS, tl.program_id(1) * BLOCK_FEATURES
    column = feature + tl.arange(0, BLOCK_FEATURES)
    u = load_tile(product, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, False).to(tl.float32)
    u += tl.load(bias + column, mask=column < features, other=0.0).to(tl.float32)[None, :]
    values, derivative = gelu_and_slope(u, TANH)
    store_tile(h, values, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, False)
    if slope is not None:
        store_tile(slope, derivative, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, False)


@triton.jit
def _gelu_backward_rows(
    product,  # (rows, features) contiguous
    slope,  # as product
    du,  # as product, may be the same memory
    sums,  # (programs, features) float32
    rows, features,
    SHARE: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_FEATURES: tl.constexpr,
):  # fmt: skip
    """One program: SHARE rows of a column of tiles, and their column sums. Rows outside are 0 and add nothing."""
    feature = tl.program_id(1) * BLOCK_FEATURES
    total = tl.zeros((BLOCK_ROWS, BLOCK_FEATURES), tl.float32)
    for start in tl.range(0, SHARE, BLOCK_ROWS):
        row = tl.program_id(0) * SHARE + start
        values = load_tile(product, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, False).to(
            tl.float32
        )
        values *= load_tile(slope, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, False).to(
            tl.float32
        )
        store_tile(du, values, row, feature, rows, features, BLOCK_ROWS, BLOCK_FEATURES, False)
        total += values
    column = feature + tl.arange(0, BLOCK_FEATURES)
    place = sums + tl.program_id(0).to(tl.int64) * features + column
    tl.store(place, tl.sum(total, 0), mask=column < features)


# Rows of a pass's program that sums columns: as many partial sums as the product's own kernel leaves.
_SHARE = 128
_PASS = Config({"BLOCK_ROWS": 8, "BLOCK_FEATURES": 256}, num_warps=4)


def _pass_grid(rows: int, tall: int, features: int) -> tuple[int, int]:
    return triton.cdiv(rows, tall), triton.cdiv(features, _PASS.blocks["BLOCK_FEATURES"])


def gelu_rows(product: Tensor, bias: Tensor, *, slope: bool) -> tuple[Tensor, Tensor | None]:
    """What :func:`linear_gelu` makes of its product, in one pass; h takes the product's place.

    Args:
        product: ``(M, F)`` float16, bfloat16 or float32, contiguous; overwritten.
        bias: ``(F,)`` floating.
        slope: whether to write the slope.
    """
    rows, features = product.shape
    derivative = torch.empty_like(product) if slope else None
    launch(
        _gelu_rows,
        _pass_grid(rows, _PASS.blocks["BLOCK_ROWS"], features),
        product.device,
        _PASS,
        product=product,
        bias=bias,
        h=product,
        slope=derivative,
        rows=rows,
        features=features,
        TANH=product.dtype.itemsize == 2,
    )
    return product, derivative


def gelu_backward_rows(
    product: Tensor, slope: Tensor, columns: Columns | None = None
) -> tuple[Tensor, Tensor]:
    """What :func:`linear_gelu_backward` makes of its product, in one pass; du takes the product's place.

    Args:
        product: ``(M, F)`` float16, bfloat16 or float32, contiguous; overwritten.
        slope: ``(M, F)`` of the same dtype.
        columns: adds the column sums up later; None adds them up now.
    """
    rows, features = product.shape
    grid = _pass_grid(rows, _SHARE, features)
    sums = Parts(columns, product, grid[0], features)
    launch(
        _gelu_backward_rows,
        grid,
        product.device,
        _PASS,
        product=product,
        slope=slope,
        du=product,
        sums=sums.parts,
        rows=rows,
        features=features,
        SHARE=_SHARE,
    )
    return product, sums.added()
