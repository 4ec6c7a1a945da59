"""Linear layer, residual addition and layer norm in one, and the backward through the next linear layer."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from ... import reference
from ..common.backends import Backend, Problem, can_always, choose, declare
from ..common.column_sums import ColumnSums
from ..common.precision import exact
from ..common.triton_support import TORCH_PRODUCTS, TRITON_PRODUCTS
from . import native as rows_native
from .checks import accumulator, check_operand, check_rows, row_problem

# The kernels hold whole rows in registers: the statistics need all of a row's values.
_MOST_WIDTH = 512

declare(
    "linear_residual_norm",
    TORCH_PRODUCTS,
    TRITON_PRODUCTS,
    rows_native.CPP_ROWS,
    Backend("reference", can_always),
)


def residual_norm_problem(rows: Tensor, hidden: int, width: int) -> Problem:
    """Rows ``(M, hidden)`` that become ``(M, width)``, as the back ends see the call."""
    refusals = (f"rows of more than {_MOST_WIDTH} values",) if width > _MOST_WIDTH else ()
    return row_problem(rows, hidden, width, *refusals)


def linear_residual_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float = 1e-5,
    *,
    scale: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``total = residual + scale * (x @ weight.T + bias)`` and its layer norm, in one pass.

    The norm is that of the *rounded* total, as in ``F.layer_norm(total)``; so the backward, which reads the rounded
    total again, is the derivative of exactly this. Products and statistics are float32 (float64 for float64), also
    under autocast. The back end ``torch`` is PyTorch's product, rounded to x's dtype, and one Triton kernel that passes
    over it.

    A building block of :mod:`fastamr.nn`'s stacks, which carry the autograd: no gradient flows through it, and it is
    not registered with PyTorch's dispatcher.

    Args:
        x: ``(M, F)`` rows of float16, bfloat16, float32 or float64, contiguous like every argument.
        weight: ``(D, F)`` of x's dtype.
        bias: ``(D,)`` of x's dtype or float32.
        residual: ``(M, D)`` of x's dtype.
        gamma: ``(D,)`` of x's dtype or float32, the norm's weight.
        beta: ``(D,)`` likewise, the norm's bias.
        eps: added to the variance.
        scale: ``(M,)`` float32 (float64 for float64), a factor of each row of the branch, as drop path has it (0 where
            the branch is dropped); None is 1.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``total (M, D)`` and ``normed (M, D)`` of x's dtype; the rows' mean and reciprocal standard deviation ``(M,)``,
        float32 (float64 for float64).

    Raises:
        ValueError: shapes or devices that do not fit, rows that are not contiguous.
        TypeError: a wrong dtype.
        RuntimeError: an argument that requires a gradient under grad mode; the named back end cannot run the call.
    """
    check_rows("x", x, "(M, F)")
    rows, width = x.shape[0], weight.shape[0]
    vectors = (accumulator(x.dtype), x.dtype)
    check_operand("weight", weight, (width, x.shape[1]), "(D, F)", (x.dtype,), x, "x")
    check_operand("bias", bias, (width,), "(D,)", vectors, x, "x")
    check_operand("residual", residual, (rows, width), "(M, D)", (x.dtype,), x, "x")
    check_operand("gamma", gamma, (width,), "(D,)", vectors, x, "x")
    check_operand("beta", beta, (width,), "(D,)", vectors, x, "x")
    if scale is not None:
        check_operand("scale", scale, (rows,), "(M,)", vectors[:1], x, "x")
    name = choose("linear_residual_norm", residual_norm_problem(x, x.shape[1], width), backend)
    if name == "triton":
        from ...kernels.linear_residual_norm import linear_residual_norm as kernel

        return kernel(x, weight, bias, residual, gamma, beta, eps, scale)
    with exact(x):
        if name == "torch":
            from ...kernels.row_norm import residual_norm_rows

            return residual_norm_rows(torch.mm(x, weight.T), bias, residual, gamma, beta, eps, scale)
        function = rows_native.linear_residual_norm if name == "cpp" else reference.linear_residual_norm
        return function(x, weight, bias, residual, gamma, beta, eps, scale)


@overload
def linear_residual_norm_backward(
    upstream: Tensor,
    weight: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None = None,
    *,
    scale: None = None,
    columns: ColumnSums | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...


@overload
def linear_residual_norm_backward(
    upstream: Tensor,
    weight: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None = None,
    *,
    scale: Tensor | None,
    columns: ColumnSums | None = None,
    backend: str | None = None,
) -> tuple[Tensor, ...]: ...


def linear_residual_norm_backward(
    upstream: Tensor,
    weight: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None = None,
    *,
    scale: Tensor | None = None,
    columns: ColumnSums | None = None,
    backend: str | None = None,
) -> tuple[Tensor, ...]:
    """Backward through the linear layer that took the normed rows, the norm, and the residual addition.

    ``dnormed = upstream @ weight``; then the layer norm's backward at ``total``; then ``skip``, the gradient that
    reaches ``total`` past the norm, is added.

    Args:
        upstream: ``(M, F)`` gradient of the output of the linear layer that took ``normed``, contiguous like every
            argument.
        weight: ``(F, D)`` of that layer, of upstream's dtype.
        total: ``(M, D)`` from :func:`linear_residual_norm`, of upstream's dtype.
        mean: ``(M,)`` from there, float32 (float64 for float64).
        rstd: ``(M,)`` likewise.
        gamma: ``(D,)`` as there.
        skip: ``(M, D)`` of upstream's dtype; None adds nothing.
        scale: ``(M,)`` as in the forward that made ``total``; None is 1.
        columns: adds the sums up in its ``finish()``, before which they hold nothing; None adds them up now.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``dx (M, D)`` of upstream's dtype, the gradient of ``total`` and so of ``residual``; the gradients ``(D,)`` of
        gamma and of beta; the gradient ``(D,)`` of :func:`linear_residual_norm`'s bias, the column sums of
        ``scale * dx``; and, last and only with a scale, ``scale * dx (M, D)`` of upstream's dtype, the gradient of the
        product before ``total``, which is dx itself without one. All sums are float32 (float64 for float64), of values
        that are not yet rounded (choice).

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`linear_residual_norm`.
    """
    check_rows("upstream", upstream, "(M, F)")
    rows, features = upstream.shape
    width = weight.shape[-1]
    dtype, statistics = upstream.dtype, accumulator(upstream.dtype)
    check_operand("weight", weight, (features, width), "(F, D)", (dtype,), upstream, "upstream")
    check_operand("total", total, (rows, width), "(M, D)", (dtype,), upstream, "upstream")
    check_operand("mean", mean, (rows,), "(M,)", (statistics,), upstream, "upstream")
    check_operand("rstd", rstd, (rows,), "(M,)", (statistics,), upstream, "upstream")
    check_operand("gamma", gamma, (width,), "(D,)", (statistics, dtype), upstream, "upstream")
    if skip is not None:
        check_operand("skip", skip, (rows, width), "(M, D)", (dtype,), upstream, "upstream")
    if scale is not None:
        check_operand("scale", scale, (rows,), "(M,)", (statistics,), upstream, "upstream")
    name = choose("linear_residual_norm", residual_norm_problem(upstream, features, width), backend)
    if name == "triton":
        from ...kernels.linear_residual_norm import linear_residual_norm_backward as kernel

        return kernel(upstream, weight, total, mean, rstd, gamma, skip, scale, columns)
    with exact(upstream):
        if name == "torch":
            from ...kernels.row_norm import residual_norm_backward_rows

            product = torch.mm(upstream, weight)
            return residual_norm_backward_rows(product, total, mean, rstd, gamma, skip, scale, columns)
        room = rows_native if name == "cpp" else reference
        return room.linear_residual_norm_backward(upstream, weight, total, mean, rstd, gamma, skip, scale)
