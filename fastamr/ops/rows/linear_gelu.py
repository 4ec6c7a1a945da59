"""Linear layer with GELU, its slope saved for the backward, and that backward."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import reference
from ..common.backends import Backend, can_always, choose, declare
from ..common.column_sums import ColumnSums
from ..common.precision import exact
from ..common.triton_support import TORCH_PRODUCTS, TRITON_PRODUCTS
from . import native as rows_native
from .checks import accumulator, check_operand, check_rows, row_problem

declare(
    "linear_gelu", TORCH_PRODUCTS, TRITON_PRODUCTS, rows_native.CPP_ROWS, Backend("reference", can_always)
)


def linear_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, *, slope: bool = True, backend: str | None = None
) -> tuple[Tensor, Tensor | None]:
    """``gelu(x @ weight.T + bias)`` and GELU's derivative at the same points, in one pass.

    The backward needs neither the layer's input to GELU nor its polynomial again, only the saved slope. GELU is exact
    (erf) for float32 and float64; for the 16-bit dtypes it is a tanh form within 4.8e-5 of it, far below their
    rounding (choice). Products are summed in float32 (float64 for float64), also under autocast; on
    a CPU's matrix unit those of float32 follow ``torch.get_float32_matmul_precision()``, see :func:`row_linear`.
    The back end ``torch`` is PyTorch's product, rounded to x's dtype, and one Triton kernel that passes over it.

    A building block of :mod:`fastamr.nn`'s stacks, which carry the autograd: no gradient flows through it, and it is
    not registered with PyTorch's dispatcher.

    Args:
        x: ``(M, D)`` rows of float16, bfloat16, float32 or float64, contiguous like every argument.
        weight: ``(F, D)`` of x's dtype.
        bias: ``(F,)`` of x's dtype or float32.
        slope: False leaves the slope out (inference).
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``h (M, F)`` and the slope ``(M, F)``, or None, both of x's dtype.

    Raises:
        ValueError: shapes or devices that do not fit, rows that are not contiguous.
        TypeError: a wrong dtype.
        RuntimeError: an argument that requires a gradient under grad mode; the named back end cannot run the call.
    """
    check_rows("x", x, "(M, D)")
    features = weight.shape[0]
    check_operand("weight", weight, (features, x.shape[1]), "(F, D)", (x.dtype,), x, "x")
    check_operand("bias", bias, (features,), "(F,)", (accumulator(x.dtype), x.dtype), x, "x")
    name = choose("linear_gelu", row_problem(x, features, x.shape[1]), backend)
    if name == "triton":
        from ...kernels.linear_gelu import linear_gelu as kernel

        return kernel(x, weight, bias, slope=slope)
    with exact(x):
        if name == "torch":
            from ...kernels.linear_gelu import gelu_rows

            return gelu_rows(torch.mm(x, weight.T), bias, slope=slope)
        if name == "cpp":
            return rows_native.linear_gelu(x, weight, bias, slope=slope)
        return reference.linear_gelu(x, weight, bias, slope=slope)


def linear_gelu_backward(
    upstream: Tensor,
    weight: Tensor,
    slope: Tensor,
    *,
    columns: ColumnSums | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Backward through the linear layer after GELU and through GELU: ``(upstream @ weight) * slope``.

    Args:
        upstream: ``(M, D)`` gradient of the next linear layer's output, contiguous like every argument.
        weight: ``(D, F)`` of that next layer, of upstream's dtype.
        slope: ``(M, F)`` from :func:`linear_gelu`, of upstream's dtype.
        columns: adds the column sums up in its ``finish()``, before which they hold nothing; None adds them up now.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``du (M, F)`` of upstream's dtype, the gradient before GELU, and its column sums ``(F,)``, the gradient of
        :func:`linear_gelu`'s bias: float32 (float64 for float64), of the values before they are rounded (choice).

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`linear_gelu`.
    """
    check_rows("upstream", upstream, "(M, D)")
    rows, width = upstream.shape
    features = weight.shape[-1]
    check_operand("weight", weight, (width, features), "(D, F)", (upstream.dtype,), upstream, "upstream")
    check_operand("slope", slope, (rows, features), "(M, F)", (upstream.dtype,), upstream, "upstream")
    name = choose("linear_gelu", row_problem(upstream, features, width), backend)
    if name == "triton":
        from ...kernels.linear_gelu import linear_gelu_backward as kernel

        return kernel(upstream, weight, slope, columns)
    with exact(upstream):
        if name == "torch":
            from ...kernels.linear_gelu import gelu_backward_rows

            return gelu_backward_rows(torch.mm(upstream, weight), slope, columns)
        if name == "cpp":
            return rows_native.linear_gelu_backward(upstream, weight, slope)
        return reference.linear_gelu_backward(upstream, weight, slope)
