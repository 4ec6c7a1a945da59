"""The CPU back end ``"cpp"`` of the ops on flat rows: PyTorch's product, then one pass of the compiled extension.

The passes are the raw functions ``fastamr_native::*_rows_cpu``; they write over the product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import native
from .backends import Backend, Problem
from .row_checks import accumulator

_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def _why_not(problem: Problem) -> str | None:
    if problem.device_type != "cpu":
        return f"it runs on cpu tensors, these are on {problem.device_type}"
    if problem.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        return f"it covers {names}, not {str(problem.dtype).removeprefix('torch.')}"
    return native.why_not("cpu")


CPP_ROWS = Backend("cpp", _why_not)


def _raw(name: str) -> Any:
    return getattr(torch.ops.fastamr_native, f"{name}_rows_cpu").default


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, *, slope: bool) -> tuple[Tensor, Tensor | None]:
    """See :func:`fastamr.ops.linear_gelu`. Call it without autocast, like the other functions here."""
    h = torch.mm(x, weight.T)
    derivative = torch.empty_like(h) if slope else None
    _raw("gelu")(h, bias.to(accumulator(x.dtype)), h, derivative)
    return h, derivative


def linear_gelu_backward(upstream: Tensor, weight: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`fastamr.ops.linear_gelu_backward`."""
    du = torch.mm(upstream, weight)
    sums = torch.empty(du.shape[1], dtype=accumulator(du.dtype))
    _raw("gelu_backward")(du, slope, du, sums)
    return du, sums


def _norm(
    product: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    total: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normed rows, mean and reciprocal standard deviation of ``product + bias + residual``, written to ``total``."""
    compute = accumulator(product.dtype)
    normed = torch.empty_like(product)
    mean, rstd = (torch.empty(len(product), dtype=compute) for _ in range(2))
    gamma, beta = gamma.to(compute), beta.to(compute)
    bias = None if bias is None else bias.to(compute)
    _raw("norm")(product, bias, residual, gamma, beta, eps, total, normed, mean, rstd)
    return normed, mean, rstd


def _norm_backward(
    product: Tensor,
    dx: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    compute = accumulator(product.dtype)
    sums = torch.empty((3, product.shape[1]), dtype=compute)
    _raw("norm_backward")(product, total, mean, rstd, gamma.to(compute), skip, dx, sums)
    dgamma, dbeta, columns = sums.unbind()
    return dx, dgamma, dbeta, columns


def linear_residual_norm(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.linear_residual_norm`."""
    total = torch.mm(x, weight.T)
    return total, *_norm(total, bias, residual, gamma, beta, eps, total)


def linear_residual_norm_backward(
    upstream: Tensor,
    weight: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.linear_residual_norm_backward`."""
    dnormed = torch.mm(upstream, weight)
    return _norm_backward(dnormed, dnormed, total, mean, rstd, gamma, skip)


def row_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.row_norm`."""
    return _norm(x, None, None, gamma, beta, eps, None)


def row_norm_backward(
    upstream: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, skip: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.row_norm_backward`."""
    return _norm_backward(upstream, torch.empty_like(upstream), x, mean, rstd, gamma, skip)
