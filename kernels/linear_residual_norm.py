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
from .launch import Config, architecture, launch, pick, row_class, suited
from .tiles import aligned, as_tiles, load_tile, moves_tiles, multiply, needs_upcast, store_tile


@triton.jit
def _vector(source, start: tl.constexpr, width: tl.constexpr, WIDE: tl.constexpr):
    """A piece of a vector ``(width,)`` as a float32 row ``(1, WIDE)``, 0 outside."""
    column = start + tl.arange(0, WIDE)
    return tl.load(source + column, mask=column < width, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _product_pieces(
    left,  # (rows, inner), tiles (ROWS, INNER)
    right,  # (inner, width), tiles (INNER, WIDE); or (width, inner), tiles (WIDE, INNER), if TRANSPOSED
    row, rows, inner,
    width: tl.constexpr, TRANSPOSED: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, INNER: tl.constexpr,
    PIECES: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Whole rows of ``left @ right`` or ``left @ right.T`` as a tuple of tiles ``(ROWS, WIDE)`` float32."""
    pieces = ()
    for _ in tl.static_range(PIECES):
        pieces += (tl.zeros((ROWS, WIDE), tl.float32),)  # type: ignore[assignment]
    for start in tl.range(0, inner, INNER):
        part = load_tile(left, row, start, rows, inner, ROWS, INNER, TMA)
        added = ()
        for place in tl.static_range(PIECES):
            if TRANSPOSED:
                other = load_tile(right, place * WIDE, start, width, inner, WIDE, INNER, TMA).T
            else:
                other = load_tile(right, start, place * WIDE, inner, width, INNER, WIDE, TMA)
            added += (multiply(part, other, pieces[place], UPCAST),)  # type: ignore[assignment]
        pieces = added
    return pieces


@triton.jit
def _add_and_write(
    values, bias, factor, residual, total, row, start: tl.constexpr, rows, width: tl.constexpr, DTYPE: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """A piece of the rows' sums, written and returned rounded, as the backward will read them."""
    values += _vector(bias, start, width, WIDE)
    if factor is not None:
        values *= factor[:, None]
    values += load_tile(residual, row, start, rows, width, ROWS, WIDE, TMA).to(tl.float32)
    rounded = values.to(DTYPE)
    store_tile(total, rounded, row, start, rows, width, ROWS, WIDE, TMA)
    return rounded.to(tl.float32)


@triton.jit
def _centred(values, centre, start: tl.constexpr, width: tl.constexpr, WIDE: tl.constexpr):
    """Values less their row's mean, 0 in the columns that pad the row."""
    values -= centre[:, None]
    if start + WIDE > width:
        values = tl.where((start + tl.arange(0, WIDE) < width)[None, :], values, 0.0)
    return values


@triton.jit
def _linear_residual_norm(
    x,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_INNER)
    weight,  # (width, features), tiles (BLOCK_WIDTH, BLOCK_INNER)
    bias,  # (width,) floating
    residual,  # (rows, width), tiles (BLOCK_ROWS, BLOCK_WIDTH)
    gamma,  # (width,) floating
    beta,  # (width,) floating
    scale,  # (rows,) float32; or None
    total,  # as residual
    normed,  # as residual
    mean,  # (rows,) float32
    rstd,  # (rows,) float32
    rows, features, eps,
    width: tl.constexpr, DTYPE: tl.constexpr, PIECES: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_ROWS whole rows, after the product BLOCK_WIDTH values of each at a time."""
    row = tl.program_id(0) * BLOCK_ROWS
    pieces = _product_pieces(
        x, weight, row, rows, features, width, True, BLOCK_ROWS, BLOCK_WIDTH, BLOCK_INNER, PIECES, TMA, UPCAST,
    )  # fmt: skip
    line = row + tl.arange(0, BLOCK_ROWS)
    factor = None
    if scale is not None:
        factor = tl.load(scale + line, mask=line < rows, other=0.0)
    sums = ()
    centre = tl.zeros((BLOCK_ROWS,), tl.float32)
    for place in tl.static_range(PIECES):
        values = _add_and_write(
            pieces[place], bias, factor, residual, total, row, place * BLOCK_WIDTH, rows, width, DTYPE, BLOCK_ROWS,
            BLOCK_WIDTH, TMA,
        )  # fmt: skip
        centre += tl.sum(values, 1)
        sums += (values,)  # type: ignore[assignment]
    centre /= width
    inverse = tl.zeros((BLOCK_ROWS,), tl.float32)
    for place in tl.static_range(PIECES):
        values = _centred(sums[place], centre, place * BLOCK_WIDTH, width, BLOCK_WIDTH)
        inverse += tl.sum(values * values, 1)
    inverse = tl.rsqrt(inverse / width + eps)
    for place in tl.static_range(PIECES):
        values = _centred(sums[place], centre, place * BLOCK_WIDTH, width, BLOCK_WIDTH) * inverse[:, None]
        values *= _vector(gamma, place * BLOCK_WIDTH, width, BLOCK_WIDTH)
        values += _vector(beta, place * BLOCK_WIDTH, width, BLOCK_WIDTH)
        store_tile(normed, values, row, place * BLOCK_WIDTH, rows, width, BLOCK_ROWS, BLOCK_WIDTH, TMA)
    tl.store(mean + line, centre, mask=line < rows)
    tl.store(rstd + line, inverse, mask=line < rows)


@triton.jit
def _write_sums(sums, values, place, start: tl.constexpr, width: tl.constexpr, WIDE: tl.constexpr):
    """Column sums of a piece into ``sums (programs * 3, width)``, row ``place``."""
    column = start + tl.arange(0, WIDE)
    tl.store(sums + place.to(tl.int64) * width + column, tl.sum(values, 0), mask=column < width)


@triton.jit
def _standardised(
    total, centre, scale, row, start: tl.constexpr, rows, width: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """A piece of the rows before gamma and beta; in the columns that pad the row anything finite."""
    values = load_tile(total, row, start, rows, width, ROWS, WIDE, TMA).to(tl.float32)
    return (values - centre[:, None]) * scale[:, None]


@triton.jit
def _norm_sums(
    values, total, centre, scale, gamma, sums, row, start: tl.constexpr, rows, width: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Sums of a piece: over columns written for dgamma and dbeta, over rows returned, weighted with gamma."""
    place = tl.program_id(0) * 3
    _write_sums(sums, values, place + 1, start, width, WIDE)
    along = values * _standardised(total, centre, scale, row, start, rows, width, ROWS, WIDE, TMA)
    _write_sums(sums, along, place, start, width, WIDE)
    weights = _vector(gamma, start, width, WIDE)
    return tl.sum(values * weights, 1), tl.sum(along * weights, 1)


@triton.jit
def _norm_gradient(
    values, total, centre, scale, gamma, flat, along, skip, factor, dx, dbranch, sums, row, start: tl.constexpr, rows,
    width: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """The gradient of a piece of the rows and of their branch, written, and the column sums of the latter."""
    # Read again: holding the tile in registers through the sums would leave no room for as many rows.
    standard = _standardised(total, centre, scale, row, start, rows, width, ROWS, WIDE, TMA)
    values *= _vector(gamma, start, width, WIDE)
    values = (values - flat[:, None] - standard * along[:, None]) * scale[:, None]
    if skip is not None:
        values += load_tile(skip, row, start, rows, width, ROWS, WIDE, TMA).to(tl.float32)
    store_tile(dx, values, row, start, rows, width, ROWS, WIDE, TMA)
    if factor is not None:
        values *= factor[:, None]
        store_tile(dbranch, values, row, start, rows, width, ROWS, WIDE, TMA)
    _write_sums(sums, values, tl.program_id(0) * 3 + 2, start, width, WIDE)


@triton.jit
def _linear_residual_norm_backward(
    upstream,  # (rows, features), tiles (BLOCK_ROWS, BLOCK_INNER)
    weight,  # (features, width), tiles (BLOCK_INNER, BLOCK_WIDTH)
    total,  # (rows, width), tiles (BLOCK_ROWS, BLOCK_WIDTH)
    mean,  # (rows,) float32
    rstd,  # (rows,) float32
    gamma,  # (width,) floating
    skip,  # as total; or None
    factors,  # (rows,) float32; or None
    dx,  # as total
    dbranch,  # as total; None without factors
    sums,  # (programs, 3, width) float32: of dgamma, dbeta, dbranch
    rows, features,
    width: tl.constexpr, PIECES: tl.constexpr, TMA: tl.constexpr, UPCAST: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr, BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_ROWS whole rows, as in the forward. Rows outside are 0 and add nothing."""
    row = tl.program_id(0) * BLOCK_ROWS
    pieces = _product_pieces(
        upstream, weight, row, rows, features, width, False, BLOCK_ROWS, BLOCK_WIDTH, BLOCK_INNER, PIECES, TMA, UPCAST,
    )  # fmt: skip
    line = row + tl.arange(0, BLOCK_ROWS)
    centre = tl.load(mean + line, mask=line < rows, other=0.0)
    scale = tl.load(rstd + line, mask=line < rows, other=0.0)
    flat = tl.zeros((BLOCK_ROWS,), tl.float32)
    along = tl.zeros((BLOCK_ROWS,), tl.float32)
    for place in tl.static_range(PIECES):
        more_flat, more_along = _norm_sums(
            pieces[place], total, centre, scale, gamma, sums, row, place * BLOCK_WIDTH, rows, width, BLOCK_ROWS,
            BLOCK_WIDTH, TMA,
        )  # fmt: skip
        flat += more_flat
        along += more_along
    flat /= width
    along /= width
    factor = None
    if factors is not None:
        factor = tl.load(factors + line, mask=line < rows, other=0.0)
    for place in tl.static_range(PIECES):
        _norm_gradient(
            pieces[place], total, centre, scale, gamma, flat, along, skip, factor, dx, dbranch, sums, row,
            place * BLOCK_WIDTH, rows, width, BLOCK_ROWS, BLOCK_WIDTH, TMA,
        )  # fmt: skip


_TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def _configs(x: Tensor, width: int, tma: bool, *, backward: bool) -> tuple[Config, ...]:
    """Tiles of whole rows that compile without spills, those that suit the number of rows first.

    Where descriptors move the tiles, 64 rows of 256 values leave room for a second program on a multiprocessor, which
    multiplies while the first one norms (in the backward just so, with some versions of Triton not). 128 rows read the
    weight half as often and take a multiprocessor for themselves. The backward norms a quarter of a row at a time: half
    a row takes more registers than there are. Hopper alone has tiles that 16 warps share, for Blackwell's tensor cores
    do not serve them.
    """
    padded, tallest = max(triton.next_power_of_2(width), 32), 128 if tma or not backward else 64

    def config(rows: int, pieces: int, inner: int, warps: int, stages: int) -> Config:
        rows, wide = max(min(rows * 256 // padded, tallest), 16), max(padded // pieces, 16)
        blocks = {"BLOCK_ROWS": rows, "BLOCK_WIDTH": wide, "BLOCK_INNER": inner}
        return Config(blocks, num_warps=warps, num_stages=stages)

    hopper = tma and architecture(x.device) < 100
    if x.dtype == torch.float32:
        found = [config(16, 4 if backward else 2, 16, 8, 2)]
    elif backward and tma:
        found = [config(64, 4, 64, 8, 2), config(128, 4, 64, 8, 3), config(64, 2, 64, 8, 3)]
        found += [config(64, 2, 64, 16, 3)] if hopper else []
    elif backward:
        found = [config(32, 2, 64, 8, 2), config(32, 2, 32, 8, 3), config(64, 2, 32, 8, 2)]
    elif tma:
        found = [config(64, 2, 64, 8, 2), config(128, 2, 64, 8, 3), config(64, 2, 64, 8, 3)]
        found += [config(128, 2, 64, 16, 2)] if hopper else []
    else:
        found = [config(64, 2, 32, 8, 2), config(64, 2, 32, 8, 3)]
    return suited(found, len(x), x.device)


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
            PIECES=triton.cdiv(width, wide),
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
            PIECES=triton.cdiv(width, wide),
            TMA=tma,
            UPCAST=needs_upcast(upstream),
        )
        return sums.added()

    shape_class = (features, width, upstream.dtype, tma, skip is None, scale is None, row_class(rows))
    configs = _configs(upstream, width, tma, backward=True)
    config = pick("linear_residual_norm_backward", shape_class, configs, run, upstream.device)
    sums = run(config, columns).unbind(0)
    return (dx, *sums) if dbranch is None else (dx, *sums, dbranch)
