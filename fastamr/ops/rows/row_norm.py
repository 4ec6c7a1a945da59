"""Layer norm of flat rows without a product before it: where a stack of blocks begins and ends."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import reference
from ..common.backends import Backend, can_always, choose, declare
from ..common.column_sums import ColumnSums
from ..common.precision import exact
from ..common.triton_support import TRITON_ROWS
from . import native as rows_native
from .checks import accumulator, check_operand, check_rows, problem_of

declare(
    "row_norm",
    TRITON_ROWS,
    rows_native.CPP_ROWS,
    Backend("torch", can_always),
    Backend("reference", can_always),
)


def _torch(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's layer norm, in float32 for the 16-bit dtypes."""
    compute = accumulator(x.dtype)
    width = [x.shape[1]]
    normed, mean, rstd = torch.native_layer_norm(
        x.to(compute), width, gamma.to(compute), beta.to(compute), eps
    )
    return normed.to(x.dtype), mean.squeeze(1), rstd.squeeze(1)


def _torch_backward(
    upstream: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, skip: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    compute = accumulator(x.dtype)
    scale = gamma.to(compute)
    dx, dgamma, dbeta = torch.ops.aten.native_layer_norm_backward(
        *(upstream.to(compute), x.to(compute), [x.shape[1]], mean[:, None], rstd[:, None], scale, scale),
        [True, True, True],
    )
    if skip is not None:
        dx = dx + skip
    return dx.to(upstream.dtype), dgamma, dbeta, dx.sum(0)


def row_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5, *, backend: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm of rows, with the statistics that its backward needs.

    Statistics are float32 (float64 for float64), also under autocast. A building block of :mod:`fastamr.nn`'s stacks,
    which carry the autograd: no gradient flows through it, and it is not registered with PyTorch's dispatcher.

    Args:
        x: ``(M, D)`` rows of float16, bfloat16, float32 or float64, contiguous like every argument.
        gamma: ``(D,)`` of x's dtype or float32.
        beta: ``(D,)`` likewise.
        eps: added to the variance.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``normed (M, D)`` of x's dtype; the rows' mean and reciprocal standard deviation ``(M,)``, float32 (float64 for
        float64).

    Raises:
        ValueError: shapes or devices that do not fit, rows that are not contiguous.
        TypeError: a wrong dtype.
        RuntimeError: an argument that requires a gradient under grad mode; the named back end cannot run the call.
    """
    check_rows("x", x, "(M, D)")
    vectors = (accumulator(x.dtype), x.dtype)
    check_operand("gamma", gamma, (x.shape[1],), "(D,)", vectors, x, "x")
    check_operand("beta", beta, (x.shape[1],), "(D,)", vectors, x, "x")
    name = choose("row_norm", problem_of(x, rows=x.shape[0], width=x.shape[1]), backend)
    if name == "triton":
        from ...kernels.row_norm import row_norm as kernel

        return kernel(x, gamma, beta, eps)
    with exact(x):
        if name == "cpp":
            return rows_native.row_norm(x, gamma, beta, eps)
        return (_torch if name == "torch" else reference.row_norm)(x, gamma, beta, eps)


def row_norm_backward(
    upstream: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None = None,
    *,
    columns: ColumnSums | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward of :func:`row_norm`; ``skip``, the gradient that reaches x past the norm, is added.

    Args:
        upstream: ``(M, D)`` gradient of the normed rows, contiguous like every argument.
        x: ``(M, D)`` as there, of upstream's dtype.
        mean: ``(M,)`` from there.
        rstd: ``(M,)`` likewise.
        gamma: ``(D,)`` as there.
        skip: ``(M, D)`` of upstream's dtype; None adds nothing.
        columns: adds the sums up in its ``finish()``, before which they hold nothing; None adds them up now.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``dx (M, D)`` of upstream's dtype; the gradients ``(D,)`` of gamma and of beta; the column sums ``(D,)`` of dx.
        All sums are float32 (float64 for float64), of values that are not yet rounded (choice).

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`row_norm`.
    """
    check_rows("upstream", upstream, "(M, D)")
    shape, dtype, compute = tuple(upstream.shape), upstream.dtype, accumulator(upstream.dtype)
    check_operand("x", x, shape, "(M, D)", (dtype,), upstream, "upstream")
    check_operand("mean", mean, shape[:1], "(M,)", (compute,), upstream, "upstream")
    check_operand("rstd", rstd, shape[:1], "(M,)", (compute,), upstream, "upstream")
    check_operand("gamma", gamma, shape[1:], "(D,)", (compute, dtype), upstream, "upstream")
    if skip is not None:
        check_operand("skip", skip, shape, "(M, D)", (dtype,), upstream, "upstream")
    name = choose("row_norm", problem_of(upstream, rows=shape[0], width=shape[1]), backend)
    if name == "triton":
        from ...kernels.row_norm import row_norm_backward as kernel

        return kernel(upstream, x, mean, rstd, gamma, skip, columns)
    with exact(upstream):
        if name == "cpp":
            return rows_native.row_norm_backward(upstream, x, mean, rstd, gamma, skip)
        function = _torch_backward if name == "torch" else reference.row_norm_backward
        return function(upstream, x, mean, rstd, gamma, skip)
