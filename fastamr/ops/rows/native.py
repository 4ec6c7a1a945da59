"""The CPU back end ``"cpp"`` of the ops on flat rows.

Where the processor has a matrix unit for bfloat16 (AMX), the compiled extension's products with a pass at their end,
``fastamr_native::*_product_cpu``; elsewhere and for float64 a library's product, then one of its passes,
``fastamr_native::*_rows_cpu``.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ... import native
from ..common.backends import Backend, Problem
from ..common.products import product, product_backward
from .checks import accumulator

_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def _why_not(problem: Problem) -> str | None:
    if problem.device_type != "cpu":
        return f"it runs on cpu tensors, these are on {problem.device_type}"
    if problem.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        return f"it covers {names}, not {str(problem.dtype).removeprefix('torch.')}"
    return native.why_not("cpu")


CPP_ROWS = Backend("cpp", _why_not, automatic_on=("cpu",))

# Parts of 8 bits that the products of float32 values take into account, by torch.get_float32_matmul_precision() and,
# where that refuses because the setting was made for one library at a time, by the CPU library's.
_FLOAT32_PARTS = {"highest": 3, "high": 2, "medium": 1}
_PARTS_OF_LIBRARY = {"tf32": 2, "bf16": 1}


def products_why_not(problem: Problem) -> str | None:
    """Why the extension's products cannot run, or None if they can."""
    reason = _why_not(problem)
    if reason is None and problem.dtype == torch.float64:
        return "the matrix unit covers float32 and bfloat16, not float64"
    if reason is None and not native.has_matrix_unit():
        return "the processor has no matrix unit (AMX), FASTAMR_CPU leaves it out, or no GCC 11 built the extension"
    return reason


def products_slower_because(problem: Problem) -> str | None:
    """Why nothing is lost where the extension's products cannot run: there is no unit for them to run on."""
    present = native.has_matrix_unit() or torch.cpu._is_amx_tile_supported()
    return None if present else "the processor has no matrix unit (AMX)"


def _parts(dtype: torch.dtype) -> int:
    """Parts of the products on the matrix unit, 0 where it cannot multiply."""
    if dtype == torch.float64 or not native.has_matrix_unit():
        return 0
    if dtype == torch.bfloat16:
        return 1
    try:
        return _FLOAT32_PARTS[torch.get_float32_matmul_precision()]
    except RuntimeError:
        own: str = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
        return _PARTS_OF_LIBRARY.get(own, 3)


@functools.cache
def _raw(name: str) -> Any:
    """A raw function; the library was loaded before it is asked for."""
    return getattr(torch.ops.fastamr_native, f"{name}_cpu").default


def row_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See :func:`fastamr.ops.row_linear`. Call it without autocast, like the other functions here."""
    out = x.new_empty((len(x), len(weight)))
    _raw("linear_product")(x, weight, True, bias.to(torch.float32), _parts(x.dtype), out)
    return out


def row_linear_backward(upstream: Tensor, weight: Tensor) -> Tensor:
    """See :func:`fastamr.ops.row_linear_backward`."""
    out = upstream.new_empty((len(upstream), weight.shape[1]))
    _raw("linear_product")(upstream, weight, False, None, _parts(upstream.dtype), out)
    return out


def weight_gradient(upstream: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
    """See :func:`fastamr.ops.weight_gradient`."""
    if out is None:
        out = x.new_empty((upstream.shape[1], x.shape[1]), dtype=torch.float32)
    _raw("weight_gradient")(upstream, x, _parts(x.dtype), out)
    return out


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, *, slope: bool) -> tuple[Tensor, Tensor | None]:
    """See :func:`fastamr.ops.linear_gelu`."""
    bias, parts = bias.to(accumulator(x.dtype)), _parts(x.dtype)
    h = x.new_empty((len(x), len(weight))) if parts else product(x, weight)
    derivative = torch.empty_like(h) if slope else None
    if parts:
        _raw("gelu_product")(x, weight, bias, parts, h, derivative)
    else:
        _raw("gelu_rows")(h, bias, h, derivative)
    return h, derivative


def linear_gelu_backward(upstream: Tensor, weight: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`fastamr.ops.linear_gelu_backward`."""
    parts = _parts(upstream.dtype)
    du = torch.empty_like(slope) if parts else product_backward(upstream, weight)
    sums = torch.empty(du.shape[1], dtype=accumulator(du.dtype))
    if parts:
        _raw("gelu_backward_product")(upstream, weight, slope, parts, du, sums)
    else:
        _raw("gelu_backward_rows")(du, slope, du, sums)
    return du, sums


def _norm(
    product: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    total: Tensor | None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normed rows, mean and reciprocal standard deviation of ``total = residual + scale * (product + bias)``."""
    compute = accumulator(product.dtype)
    normed = torch.empty_like(product)
    mean, rstd = (torch.empty(len(product), dtype=compute) for _ in range(2))
    gamma, beta = gamma.to(compute), beta.to(compute)
    bias = None if bias is None else bias.to(compute)
    _raw("norm_rows")(product, bias, residual, gamma, beta, eps, scale, total, normed, mean, rstd)
    return normed, mean, rstd


def _norm_backward(
    product: Tensor,
    dx: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
    scale: Tensor | None = None,
    dbranch: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    compute = accumulator(product.dtype)
    sums = torch.empty((3, product.shape[1]), dtype=compute)
    _raw("norm_backward_rows")(product, total, mean, rstd, gamma.to(compute), skip, scale, dx, dbranch, sums)
    dgamma, dbeta, bias_grads = sums.unbind()
    return dx, dgamma, dbeta, bias_grads


def linear_residual_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.linear_residual_norm`."""
    parts = _parts(x.dtype)
    if parts:
        total, normed = torch.empty_like(residual), torch.empty_like(residual)
        mean, rstd = torch.empty((2, len(x)), dtype=torch.float32).unbind()
        bias, gamma, beta = (each.to(torch.float32) for each in (bias, gamma, beta))
        _raw("norm_product")(
            x, weight, bias, residual, gamma, beta, eps, scale, parts, total, normed, mean, rstd
        )
        return total, normed, mean, rstd
    total = product(x, weight)
    return total, *_norm(total, bias, residual, gamma, beta, eps, total, scale)


def linear_residual_norm_backward(
    upstream: Tensor,
    weight: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor, ...]:
    """See :func:`fastamr.ops.linear_residual_norm_backward`."""
    parts = _parts(upstream.dtype)
    dbranch = None if scale is None else torch.empty_like(total)
    last = () if dbranch is None else (dbranch,)
    if parts:
        dx, sums = torch.empty_like(total), torch.empty((3, total.shape[1]), dtype=torch.float32)
        gamma = gamma.to(torch.float32)
        _raw("norm_backward_product")(
            upstream, weight, total, mean, rstd, gamma, skip, scale, parts, dx, dbranch, sums
        )
        return dx, *sums.unbind(), *last
    dnormed = product_backward(upstream, weight)
    return *_norm_backward(dnormed, dnormed, total, mean, rstd, gamma, skip, scale, dbranch), *last


def row_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.row_norm`."""
    return _norm(x, None, None, gamma, beta, eps, None)


def row_norm_backward(
    upstream: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, skip: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.row_norm_backward`."""
    return _norm_backward(upstream, torch.empty_like(upstream), x, mean, rstd, gamma, skip)
