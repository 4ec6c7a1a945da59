"""Layer norm of flat rows, alone or after bias, drop path's factor and residual, and its backward with all column sums.

A program owns whole rows, so their statistics never leave it. The backward's programs take several tiles of rows one
after the other and leave one partial sum a column; those are added by a second launch, in a fixed order. The formulas
are in :mod:`fastamr.reference.rows.row_norm` and :mod:`fastamr.reference.rows.linear_residual_norm`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .columns import Columns, Parts
from .launch import Config, launch, pick, row_class, suited


@triton.jit
def _row_vector(source, columns, width: tl.constexpr):
    """A vector ``(width,)`` as a float32 row, 0 outside."""
    return tl.load(source + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _norm_rows(
    x,  # (rows, width) contiguous: rows, or a product
    bias,  # (width,) floating; or None, as residual, scale and total
    residual,  # as x
    scale,  # (rows,) float32
    total,  # as x, may be the same memory
    gamma,  # (width,) floating
    beta,  # (width,) floating
    normed,  # as x
    mean,  # (rows,) float32
    rstd,  # (rows,) float32
    rows, eps,
    width: tl.constexpr, BLOCK_ROWS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_ROWS whole rows, padded to PADDED values."""
    line = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.arange(0, PADDED)
    place = line.to(tl.int64)[:, None] * width + column[None, :]
    mask = (line < rows)[:, None] & (column < width)[None, :]
    values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if bias is not None:
        values += _row_vector(bias, column, width)
    if scale is not None:
        values *= tl.load(scale + line, mask=line < rows, other=0.0)[:, None]
    if residual is not None:
        values += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    if total is not None:
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=mask)
        # The statistics are those of the rounded sum, which is what the backward reads.
        values = rounded.to(tl.float32)
    centre = tl.sum(values, 1) / width
    values = tl.where((column < width)[None, :], values - centre[:, None], 0.0)
    inverse = tl.rsqrt(tl.sum(values * values, 1) / width + eps)
    values = values * inverse[:, None] * _row_vector(gamma, column, width) + _row_vector(beta, column, width)
    tl.store(normed + place, values.to(normed.dtype.element_ty), mask=mask)
    tl.store(mean + line, centre, mask=line < rows)
    tl.store(rstd + line, inverse, mask=line < rows)


@triton.jit
def _norm_backward_rows(
    upstream,  # (rows, width) contiguous: the gradient of the normed rows
    total,  # as upstream
    mean,  # (rows,) float32
    rstd,  # (rows,) float32
    gamma,  # (width,) floating
    skip,  # as upstream; or None
    scale,  # (rows,) float32; or None
    dx,  # as upstream, may be the same memory
    dbranch,  # as upstream; None without scale
    sums,  # (programs, 3, width) float32: of dgamma, dbeta, dbranch
    rows,
    width: tl.constexpr, SHARE: tl.constexpr, BLOCK_ROWS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One program: SHARE whole rows, padded to PADDED values. Rows outside are 0 and add nothing."""
    column = tl.arange(0, PADDED)
    within = column < width
    weights = _row_vector(gamma, column, width)
    to_gamma = tl.zeros((BLOCK_ROWS, PADDED), tl.float32)
    to_beta = tl.zeros((BLOCK_ROWS, PADDED), tl.float32)
    to_bias = tl.zeros((BLOCK_ROWS, PADDED), tl.float32)
    for start in tl.range(0, SHARE, BLOCK_ROWS):
        line = tl.program_id(0) * SHARE + start + tl.arange(0, BLOCK_ROWS)
        inside = line < rows
        place = line.to(tl.int64)[:, None] * width + column[None, :]
        mask = inside[:, None] & within[None, :]
        values = tl.load(upstream + place, mask=mask, other=0.0).to(tl.float32)
        inverse = tl.load(rstd + line, mask=inside, other=0.0)[:, None]
        centre = tl.load(mean + line, mask=inside, other=0.0)[:, None]
        standard = (tl.load(total + place, mask=mask, other=0.0).to(tl.float32) - centre) * inverse
        to_beta += values
        to_gamma += values * standard
        values *= weights
        flat = tl.sum(values, 1) / width
        along = tl.sum(values * standard, 1) / width
        values = (values - flat[:, None] - standard * along[:, None]) * inverse
        if skip is not None:
            values += tl.load(skip + place, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx + place, values.to(dx.dtype.element_ty), mask=mask)
        if scale is not None:
            values *= tl.load(scale + line, mask=inside, other=0.0)[:, None]
            tl.store(dbranch + place, values.to(dbranch.dtype.element_ty), mask=mask)
        to_bias += values
    target = sums + tl.program_id(0).to(tl.int64) * (3 * width) + column
    tl.store(target, tl.sum(to_gamma, 0), mask=within)
    tl.store(target + width, tl.sum(to_beta, 0), mask=within)
    tl.store(target + 2 * width, tl.sum(to_bias, 0), mask=within)


# The most rows of a tile.
_TALLEST = 16


def _config(width: int, numbers: int, warps: int, **more: int) -> Config:
    """Whole rows in a tile of that many values where they fit, spread over enough warps that nothing spills."""
    padded = max(triton.next_power_of_2(width), 32)
    tall = max(min(numbers // padded, _TALLEST), 1)
    blocks = {"BLOCK_ROWS": tall, "PADDED": padded, **more}
    return Config(blocks, num_warps=max(padded * warps // numbers, warps))


def _configs(width: int) -> tuple[Config, ...]:
    """Tiles of the forward; so many programs share a multiprocessor that the number of rows orders nothing."""
    return (_config(width, 2048, 4), _config(width, 1024, 4), _config(width, 4096, 8))


def _backward_configs(width: int, rows: int, device: torch.device) -> tuple[Config, ...]:
    """Tiles and shares of rows, those that suit the number of rows first; three sums take registers too."""
    found = [_config(width, 1024, 4, SHARE=32), _config(width, 1024, 4, SHARE=64)]
    return suited([*found, _config(width, 2048, 8, SHARE=64)], rows, device)


def _norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    total: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, width = x.shape
    normed = torch.empty_like(x)
    mean, rstd = (x.new_empty((rows,), dtype=torch.float32) for _ in range(2))

    def run(config: Config, total: Tensor | None) -> None:
        launch(
            _norm_rows,
            (triton.cdiv(rows, config.blocks["BLOCK_ROWS"]),),
            x.device,
            config,
            x=x,
            bias=bias,
            residual=residual,
            scale=scale,
            total=total,
            gamma=gamma,
            beta=beta,
            normed=normed,
            mean=mean,
            rstd=rstd,
            rows=rows,
            eps=eps,
            width=width,
        )

    def try_out(config: Config) -> None:
        run(
            config, None if total is None else torch.empty_like(total)
        )  # total may be x, which is needed again

    shape_class = (width, x.dtype, total is None, scale is None, row_class(rows))
    run(pick("norm_rows", shape_class, _configs(width), try_out, x.device), total)
    return normed, mean, rstd


def _norm_backward(
    upstream: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
    dx: Tensor,
    columns: Columns | None,
    scale: Tensor | None = None,
    dbranch: Tensor | None = None,
) -> tuple[Tensor, ...]:
    rows, width = total.shape

    def run(config: Config, dx: Tensor, later: Columns | None) -> Tensor:
        programs = triton.cdiv(rows, config.blocks["SHARE"])
        sums = Parts(later, total, programs, 3, width)
        launch(
            _norm_backward_rows,
            (programs,),
            total.device,
            config,
            upstream=upstream,
            total=total,
            mean=mean,
            rstd=rstd,
            gamma=gamma,
            skip=skip,
            scale=scale,
            dx=dx,
            dbranch=dbranch,
            sums=sums.parts,
            rows=rows,
            width=width,
        )
        return sums.added()

    def try_out(config: Config) -> None:
        run(config, torch.empty_like(dx), None)  # dx may be upstream, which is needed again

    shape_class = (width, total.dtype, skip is None, scale is None, row_class(rows))
    candidates = _backward_configs(width, rows, total.device)
    config = pick("norm_backward_rows", shape_class, candidates, try_out, total.device)
    return run(config, dx, columns).unbind(0)


def row_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``normed (M, D)`` of x's dtype, and the rows' mean and rstd ``(M,)`` float32.

    Args:
        x: ``(M, D)`` float16, bfloat16 or float32, contiguous, D at most 4096.
        gamma: ``(D,)`` floating.
        beta: ``(D,)`` floating.
        eps: added to the variance.
    """
    return _norm(x, gamma, beta, eps)


def row_norm_backward(
    upstream: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
    columns: Columns | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``dx (M, D)`` of upstream's dtype; the gradients of gamma and beta and dx's column sums ``(D,)``, float32.

    Args:
        upstream: ``(M, D)`` float16, bfloat16 or float32, contiguous like every argument.
        x: ``(M, D)`` of the same dtype.
        mean: ``(M,)`` float32.
        rstd: ``(M,)`` float32.
        gamma: ``(D,)`` floating.
        skip: ``(M, D)`` of upstream's dtype, or None.
        columns: adds the column sums up later; None adds them up now.
    """
    dx = torch.empty_like(upstream)
    dgamma, dbeta, sums = _norm_backward(upstream, x, mean, rstd, gamma, skip, dx, columns)
    return dx, dgamma, dbeta, sums


def residual_norm_rows(
    product: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the kernel of linear_residual_norm makes of its product, in one pass; total takes the product's place.

    Args:
        product: ``(M, D)`` float16, bfloat16 or float32, contiguous, D at most 4096; overwritten.
        bias: ``(D,)`` floating.
        residual: ``(M, D)`` of the product's dtype.
        gamma: ``(D,)`` floating.
        beta: ``(D,)`` floating.
        eps: added to the variance.
        scale: ``(M,)`` float32, factors of the rows of the branch, or None.
    """
    given = {"bias": bias, "residual": residual, "scale": scale, "total": product}
    return product, *_norm(product, gamma, beta, eps, **given)


def residual_norm_backward_rows(
    product: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
    scale: Tensor | None = None,
    columns: Columns | None = None,
) -> tuple[Tensor, ...]:
    """What the kernel of linear_residual_norm's backward makes of its product, in one pass; dx takes its place.

    Args:
        product: ``(M, D)`` float16, bfloat16 or float32, contiguous like every argument; overwritten.
        total: ``(M, D)`` of the same dtype.
        mean: ``(M,)`` float32.
        rstd: ``(M,)`` float32.
        gamma: ``(D,)`` floating.
        skip: ``(M, D)`` of the product's dtype, or None.
        scale: ``(M,)`` float32, factors of the rows of the branch, or None.
        columns: adds the column sums up later; None adds them up now.
    """
    dbranch = None if scale is None else torch.empty_like(total)
    sums = _norm_backward(product, total, mean, rstd, gamma, skip, product, columns, scale, dbranch)
    return (product, *sums) if dbranch is None else (product, *sums, dbranch)
