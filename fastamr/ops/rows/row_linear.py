"""A linear layer of flat rows, and the backward to its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import reference
from ..common.backends import Backend, Problem, can_always, choose, declare
from ..common.planning import device_type_of
from ..common.precision import exact
from ..common.products import product, product_backward
from . import native as rows_native
from .checks import accumulator, check_operand, check_rows, row_problem


def _library_is_faster(problem: Problem) -> str | None:
    """What bench_row_linear.py found: without a pass at the product's end there is nothing to gain."""
    if problem.dtype == torch.bfloat16:
        return "PyTorch's bfloat16 product uses the same unit"
    return rows_native.products_slower_because(problem)


declare(
    "row_linear",
    Backend("cpp", rows_native.products_why_not, automatic_on=("cpu",), slower_because=_library_is_faster),
    Backend("torch", can_always),
    Backend("reference", can_always),
)


def _library(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The product of cuBLAS, oneDNN or MKL."""
    if device_type_of(x) == "cuda" or x.dtype == torch.bfloat16:
        return F.linear(x, weight, bias.to(x.dtype))
    return product(x, weight, bias)


def row_linear(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str | None = None) -> Tensor:
    """``x @ weight.T + bias``, summed in float32 (float64 for float64), also under autocast.

    The back end ``torch`` is the library's product; ``cpp`` is a CPU's matrix unit, whose products of float32 values
    follow ``torch.get_float32_matmul_precision()``: all 24 bits (``highest``), 16 (``high``) or 8 (``medium``) of each
    value above 1e-31. ``auto`` takes it for float32, whatever the size, and PyTorch's product, which uses the same
    unit, for bfloat16 (``benchmarks/ops/rows/bench_row_linear.py``).

    A building block of :mod:`fastamr.nn`'s stacks, which carry the autograd: no gradient flows through it, and it is
    not registered with PyTorch's dispatcher.

    Args:
        x: ``(M, D)`` rows of float16, bfloat16, float32 or float64, contiguous like every argument.
        weight: ``(F, D)`` of x's dtype.
        bias: ``(F,)`` of x's dtype or float32.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``(M, F)`` of x's dtype.

    Raises:
        ValueError: shapes or devices that do not fit, rows that are not contiguous.
        TypeError: a wrong dtype.
        RuntimeError: an argument that requires a gradient under grad mode; the named back end cannot run the call.
    """
    check_rows("x", x, "(M, D)")
    features = weight.shape[0]
    check_operand("weight", weight, (features, x.shape[1]), "(F, D)", (x.dtype,), x, "x")
    check_operand("bias", bias, (features,), "(F,)", (accumulator(x.dtype), x.dtype), x, "x")
    name = choose("row_linear", row_problem(x, features, x.shape[1]), backend)
    with exact(x):
        if name == "cpp":
            return rows_native.row_linear(x, weight, bias)
        return _library(x, weight, bias) if name == "torch" else reference.row_linear(x, weight, bias)


def row_linear_backward(upstream: Tensor, weight: Tensor, *, backend: str | None = None) -> Tensor:
    """``upstream @ weight``: the gradient of :func:`row_linear`'s input.

    Args:
        upstream: ``(M, F)`` gradient of the output, contiguous like every argument.
        weight: ``(F, D)`` of upstream's dtype.
        backend: back end for this call; None takes the user's choice.

    Returns:
        ``(M, D)`` of upstream's dtype.

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`row_linear`.
    """
    check_rows("upstream", upstream, "(M, F)")
    features, width = upstream.shape[1], weight.shape[-1]
    check_operand("weight", weight, (features, width), "(F, D)", (upstream.dtype,), upstream, "upstream")
    name = choose("row_linear", row_problem(upstream, features, width), backend)
    with exact(upstream):
        if name == "cpp":
            return rows_native.row_linear_backward(upstream, weight)
        if name == "torch":
            return product_backward(upstream, weight)
        return reference.row_linear_backward(upstream, weight)
