"""Layer norm, forward and backward, in the epilogue of the product that makes its rows.

A program owns whole rows, so their statistics never leave it: forward it writes the sum of residual and product and
its norm, backward the gradient of the sum and the column sums that are the gradients of gamma, beta and the bias. The
programs' sums are added by a small second launch, in a fixed order. The formulas are in
:mod:`fastamr.reference.linear_residual_norm`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import Columns, Parts
from .launch import Config, architecture, launch, pick, row_class
from .tiles import aligned, as_tiles, load_tile, moves_tiles, multiply, needs_upcast, store_tile


@triton.jit
def _vector(source, start: tl.constexpr, width: tl.constexpr, HALF: tl.constexpr):
    """A half of a vector ``(width,)`` as a float32 row ``(1, HALF)``, 0 outside."""
    column = start + tl.arange(0, HALF)
    return tl.load(source + column, mask=column < width, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _product_halves(
    left,  # (rows, inner), tiles (ROWS, INNER)
    right,  # (inner, width), or (width, inner) if TRANSPOSED; tiles of HALF columns
    row, rows, inner,
    width: tl.constexpr, TRANSPOSED: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
    INNER: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Whole rows of ``left @ right`` or ``left @ right.T`` as two tiles ``(ROWS, HALF)`` float32."""
    low = tl.zeros((ROWS, HALF), tl.float32)
    high = tl.zeros((ROWS, HALF), tl.float32)
    for start in tl.range(0, inner, INNER):
        part = load_tile(left, row, start, rows, inner, ROWS, INNER, TMA)
        if TRANSPOSED:
            first = load_tile(right, 0, start, width, inner, HALF, INNER, TMA).T
            second = load_tile(right, HALF, start, width, inner, HALF, INNER, TMA).T
        else:
            first = load_tile(right, start, 0, inner, width, INNER, HALF, TMA)
            second = load_tile(right, start, HALF, inner, width, INNER, HALF, TMA)
        low = multiply(part, first, low, UPCAST)
        high = multiply(part, second, high, UPCAST)
    return low, high


@triton.jit
def _add_and_write(
    values, bias, factor, residual, total, row, start: tl.constexpr, rows, width: tl.constexpr, DTYPE: tl.constexpr,
    ROWS: tl.constexpr, HALF: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """A half of the rows' sums, written and returned rounded, as the backward will read them."""
    values += _vector(bias, start, width, HALF)
    if factor is not None:
        values *= factor[:, None]
    values += load_tile(residual, row, start, rows, width, ROWS, HALF, TMA).to(tl.float32)
    rounded = values.to(DTYPE)
    store_tile(total, rounded, row, start, rows, width, ROWS, HALF, TMA)
    return rounded.to(tl.float32)


@triton.jit
def _centred(values, centre, start: tl.constexpr, width: tl.constexpr, HALF: tl.constexpr):
    """Values less their row's mean, 0 in the columns that pad the row."""
    values -= centre[:, None]
    if start + HALF > width:
        values = tl.where((start + tl.arange(0, HALF) < width)[None, :], values, 0.0)
    return values


@triton.jit
def _linear_residual_norm(
    x,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_INNER)
    weight,  # (width, features), tiles (HALF, BLOCK_INNER)
    bias,  # (width,) floating
    residual,  # (rows, width), tiles (BLOCK_ROWS, HALF)
    gamma,  # (width,) floating
    beta,  # (width,) floating
    scale,  # (rows,) float32; or None
    total,  # as residual
    normed,  # as residual
    mean,  # (rows,) float32
    rstd,  # (rows,) float32
    rows, features, eps,
    width: tl.constexpr, DTYPE: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, HALF: tl.constexpr, BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_ROWS whole rows, padded to twice HALF values."""
    row = tl.program_id(0) * BLOCK_ROWS
    low, high = _product_halves(
        x, weight, row, rows, features, width, True, BLOCK_ROWS, HALF, BLOCK_INNER, TMA, UPCAST
    )
    line = row + tl.arange(0, BLOCK_ROWS)
    factor = None
    if scale is not None:
        factor = tl.load(scale + line, mask=line < rows, other=0.0)
    low = _add_and_write(
        low, bias, factor, residual, total, row, 0, rows, width, DTYPE, BLOCK_ROWS, HALF, TMA
    )
    high = _add_and_write(
        high, bias, factor, residual, total, row, HALF, rows, width, DTYPE, BLOCK_ROWS, HALF, TMA
    )
    centre = (tl.sum(low, 1) + tl.sum(high, 1)) / width
    low = _centred(low, centre, 0, width, HALF)
    high = _centred(high, centre, HALF, width, HALF)
    inverse = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / width + eps)
    low = low * inverse[:, None] * _vector(gamma, 0, width, HALF) + _vector(beta, 0, width, HALF)
    store_tile(normed, low, row, 0, rows, width, BLOCK_ROWS, HALF, TMA)
    high = high * inverse[:, None] * _vector(gamma, HALF, width, HALF) + _vector(beta, HALF, width, HALF)
    store_tile(normed, high, row, HALF, rows, width, BLOCK_ROWS, HALF, TMA)
    tl.store(mean + line, centre, mask=line < rows)
    tl.store(rstd + line, inverse, mask=line < rows)


@triton.jit
def _write_sums(sums, values, place, start: tl.constexpr, width: tl.constexpr, HALF: tl.constexpr):
    """Column sums of a half into ``sums (programs * 3, width)``, row ``place``."""
    column = start + tl.arange(0, HALF)
    tl.store(sums + place.to(tl.int64) * width + column, tl.sum(values, 0), mask=column < width)


@triton.jit
def _standardised(
    total, centre, scale, row, start: tl.constexpr, rows, width: tl.constexpr, ROWS: tl.constexpr,
    HALF: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """A half of the rows before gamma and beta; in the columns that pad the row anything finite."""
    values = load_tile(total, row, start, rows, width, ROWS, HALF, TMA).to(tl.float32)
    return (values - centre[:, None]) * scale[:, None]


@triton.jit
def _norm_sums(
    values, total, centre, scale, gamma, sums, row, start: tl.constexpr, rows, width: tl.constexpr,
    ROWS: tl.constexpr, HALF: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Sums of a half: over columns written for dgamma and dbeta, over rows returned with the scaled values."""
    place = tl.program_id(0) * 3
    _write_sums(sums, values, place + 1, start, width, HALF)
    along = values * _standardised(total, centre, scale, row, start, rows, width, ROWS, HALF, TMA)
    _write_sums(sums, along, place, start, width, HALF)
    weights = _vector(gamma, start, width, HALF)
    values *= weights
    return values, tl.sum(values, 1), tl.sum(along * weights, 1)


@triton.jit
def _norm_gradient(
    values, total, centre, scale, flat, along, skip, factor, dx, dbranch, sums, row, start: tl.constexpr, rows,
    width: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """The gradient of a half of the rows and of their branch, written, and the column sums of the latter."""
    # Read again: holding the tile in registers through the sums would leave no room for as many rows.
    standard = _standardised(total, centre, scale, row, start, rows, width, ROWS, HALF, TMA)
    values = (values - flat[:, None] - standard * along[:, None]) * scale[:, None]
    if skip is not None:
        values += load_tile(skip, row, start, rows, width, ROWS, HALF, TMA).to(tl.float32)
    store_tile(dx, values, row, start, rows, width, ROWS, HALF, TMA)
    if factor is not None:
        values *= factor[:, None]
        store_tile(dbranch, values, row, start, rows, width, ROWS, HALF, TMA)
    _write_sums(sums, values, tl.program_id(0) * 3 + 2, start, width, HALF)


@triton.jit
def _linear_residual_norm_backward(
    upstream,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_INNER)
    weight,  # (features, width), tiles (BLOCK_INNER, HALF)
    total,  # (rows, width), tiles (BLOCK_ROWS, HALF)
    mean,  # (rows,) float32
    rstd,  # (rows,) float32
    gamma,  # (width,) floating
    skip,  # as total; or None
    factors,  # (rows,) float32; or None
    dx,  # as total
    dbranch,  # as total; None without factors
    sums,  # (programs, 3, width) float32: of dgamma, dbeta, dbranch
    rows, features,
    width: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    HALF: tl.constexpr, BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_ROWS whole rows, padded to twice HALF values. Rows outside are 0 and add nothing."""
    row = tl.program_id(0) * BLOCK_ROWS
    low, high = _product_halves(
        upstream, weight, row, rows, features, width, False, BLOCK_ROWS, HALF, BLOCK_INNER, TMA, UPCAST
    )
    line = row + tl.arange(0, BLOCK_ROWS)
    centre = tl.load(mean + line, mask=line < rows, other=0.0)
    scale = tl.load(rstd + line, mask=line < rows, other=0.0)
    low, flat, along = _norm_sums(
        low, total, centre, scale, gamma, sums, row, 0, rows, width, BLOCK_ROWS, HALF, TMA
    )
    high, more_flat, more_along = _norm_sums(
        high, total, centre, scale, gamma, sums, row, HALF, rows, width, BLOCK_ROWS, HALF, TMA
    )
    flat = (flat + more_flat) / width
    along = (along + more_along) / width
    factor = None
    if factors is not None:
        factor = tl.load(factors + line, mask=line < rows, other=0.0)
    _norm_gradient(
        low, total, centre, scale, flat, along, skip, factor, dx, dbranch, sums, row, 0, rows, width, BLOCK_ROWS,
        HALF, TMA,
    )  # fmt: skip
    _norm_gradient(
        high, total, centre, scale, flat, along, skip, factor, dx, dbranch, sums, row, HALF, rows, width, BLOCK_ROWS,
        HALF, TMA,
    )  # fmt: skip


_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def _configs(x: Tensor, width: int, tma: bool, *, backward: bool) -> tuple[Config, ...]:
    """Tiles of whole rows that compile without spills, 16384 values in the first of them.

    The forward leaves room for two programs on a multiprocessor. The backward needs more registers: on Hopper twice the
    warps share a tile, on Blackwell, where 16 warps would lose its tensor cores, one program has the registers to
    itself, and elsewhere a tile is half as tall.
    """
    padded = max(triton.next_power_of_2(width), 32)

    def config(numbers: int, inner: int, warps: int, stages: int) -> Config:
        rows = max(min(numbers // padded, 128), 16)
        blocks = {"BLOCK_ROWS": rows, "HALF": padded // 2, "BLOCK_INNER": inner}
        return Config(blocks, num_warps=warps, num_stages=stages)

    if x.dtype == torch.float32:
        return (config(16 * 256, 16, 8, 2),)
    if backward:
        if not tma:
            return (config(32 * 256, 64, 8, 2), config(32 * 256, 32, 8, 3))
        warps = 16 if architecture(x.device) < 100 else 8
        return (config(64 * 256, 64, warps, 3), config(64 * 256, 64, 8, 2))
    if not tma:
        return (config(64 * 256, 32, 8, 2), config(64 * 256, 32, 8, 3))
    # Twice the rows halve the weight's traffic, but the encoder's fewer programs leave more of a GPU idle.
    taller = (config(128 * 256, 64, 16, 2),) if architecture(x.device) < 100 else ()
    return (config(64 * 256, 64, 8, 2), *taller, config(64 * 256, 64, 8, 3))


def linear_residual_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``total (M, D)`` and ``normed (M, D)`` of x's dtype, and the rows' mean and rstd ``(M,)`` float32.

    Args:
        x: ``(M, F)`` float16, bfloat16 or float32, contiguous like every argument.
        weight: ``(D, F)`` of the same dtype, D at most 512.
        bias: ``(D,)`` floating.
        residual: ``(M, D)`` of x's dtype.
        gamma: ``(D,)`` floating.
        beta: ``(D,)`` floating.
        eps: added to the variance.
        scale: ``(M,)`` float32, factors of the rows of the branch, or None.
    """
    (rows, features), width = x.shape, weight.shape[0]
    total, normed = torch.empty_like(residual), torch.empty_like(residual)
    mean = x.new_empty((rows,), dtype=torch.float32)
    rstd = torch.empty_like(mean)
    tma = moves_tiles(x.device) and aligned(x, weight, residual, total, normed)

    def run(config: Config) -> None:
        tall, wide, deep = config.blocks.values()
        launch(
            _linear_residual_norm,
            (triton.cdiv(rows, tall),),
            x.device,
            config,
            x=as_tiles(x, tall, deep, tma),
            weight=as_tiles(weight, wide, deep, tma),
            bias=bias,
            residual=as_tiles(residual, tall, wide, tma),
            gamma=gamma,
            beta=beta,
            scale=scale,
            total=as_tiles(total, tall, wide, tma),
            normed=as_tiles(normed, tall, wide, tma),
            mean=mean,
            rstd=rstd,
            rows=rows,
            features=features,
            width=width,
            eps=eps,
            DTYPE=_TYPES[x.dtype],
            TMA=tma,
            UPCAST=needs_upcast(x),
        )

    shape_class = (features, width, x.dtype, tma, scale is None, row_class(rows))
    run(pick("linear_residual_norm", shape_class, _configs(x, width, tma, backward=False), run, x.device))
    return total, normed, mean, rstd


def linear_residual_norm_backward(
    upstream: Tensor,
    weight: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
    scale: Tensor | None = None,
    columns: Columns | None = None,
) -> tuple[Tensor, ...]:
    """``dx (M, D)`` of upstream's dtype; the gradients of gamma, beta and the bias ``(D,)`` float32.

    With a scale also, and last, ``scale * dx (M, D)`` of upstream's dtype.

    Args:
        upstream: ``(M, F)`` float16, bfloat16 or float32, contiguous like every argument.
        weight: ``(F, D)`` of the same dtype, D at most 512.
        total: ``(M, D)`` of the same dtype.
        mean: ``(M,)`` float32.
        rstd: ``(M,)`` float32.
        gamma: ``(D,)`` floating.
        skip: ``(M, D)`` of upstream's dtype, or None.
        scale: ``(M,)`` float32, factors of the rows of the branch, or None.
        columns: adds the column sums up later; None adds them up now.
    """
    (rows, features), width = upstream.shape, weight.shape[1]
    dx = torch.empty_like(total)
    dbranch = None if scale is None else torch.empty_like(total)
    tma = moves_tiles(upstream.device) and aligned(upstream, weight, total, skip, dx, dbranch)

    def run(config: Config, later: Columns | None = None) -> Tensor:
        tall, wide, deep = config.blocks.values()
        programs = triton.cdiv(rows, tall)
        sums = Parts(later, upstream, programs, 3, width)
        launch(
            _linear_residual_norm_backward,
            (programs,),
            upstream.device,
            config,
            upstream=as_tiles(upstream, tall, deep, tma),
            weight=as_tiles(weight, deep, wide, tma),
            total=as_tiles(total, tall, wide, tma),
            mean=mean,
            rstd=rstd,
            gamma=gamma,
            skip=as_tiles(skip, tall, wide, tma),
            factors=scale,
            dx=as_tiles(dx, tall, wide, tma),
            dbranch=as_tiles(dbranch, tall, wide, tma),
            sums=sums.parts,
            rows=rows,
            features=features,
            width=width,
            TMA=tma,
            UPCAST=needs_upcast(upstream),
        )
        return sums.added()

    shape_class = (features, width, upstream.dtype, tma, skip is None, scale is None, row_class(rows))
    configs = _configs(upstream, width, tma, backward=True)
    config = pick("linear_residual_norm_backward", shape_class, configs, run, upstream.device)
    sums = run(config, columns).unbind(0)
    return (dx, *sums) if dbranch is None else (dx, *sums, dbranch)
