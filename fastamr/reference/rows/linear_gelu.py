"""Linear layer with GELU that also gives GELU's slope, and the backward through the next linear layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# GELU(u) = u * (1/2 + 1/2 tanh(u * (C1 + C3 u^2 + C5 u^4))) within 4.8e-5, a fortieth of bfloat16's rounding. The
# polynomial is fitted for |u| <= 8; from there on tanh is 1, and u^2 is held at 64 to keep it so.
TANH_COEFFICIENTS = (0.797378, 0.037172, -0.00037988)
TANH_LIMIT = 64.0


def gelu_and_slope(u: Tensor, form: str) -> tuple[Tensor, Tensor]:
    """GELU and its derivative, element by element, in u's dtype.

    Args:
        u: any shape, floating point.
        form: ``"erf"``, the exact one, or ``"tanh"``, the cheap one of the constants above.
    """
    if form == "erf":
        cdf = 0.5 * (1 + torch.erf(u * math.sqrt(0.5)))
        return u * cdf, cdf + u * torch.exp(-0.5 * u * u) * math.sqrt(0.5 / math.pi)
    first, third, fifth = TANH_COEFFICIENTS
    square = (u * u).clamp(max=TANH_LIMIT)
    # 1/2 + 1/2 tanh(a) as sigmoid(2a): no cancellation where u is far below 0.
    cdf = torch.sigmoid(2 * u * (first + square * (third + square * fifth)))
    steepness = 2 * (first + square * (3 * third + square * (5 * fifth)))
    return u * cdf, cdf + u * cdf * (1 - cdf) * steepness


def form_for(dtype: torch.dtype) -> str:
    """The form that rounds no worse than the dtype: ``"tanh"`` for the 16-bit ones, else ``"erf"``."""
    return "tanh" if dtype.itemsize == 2 else "erf"


def linear_gelu(
    x: Tensor, weight: Tensor, bias: Tensor, *, slope: bool = True, form: str | None = None
) -> tuple[Tensor, Tensor | None]:
    """See :func:`fastamr.ops.linear_gelu`; ``form`` overrides what :func:`form_for` takes for x's dtype."""
    compute = torch.promote_types(torch.float32, x.dtype)
    u = x.to(compute) @ weight.to(compute).T + bias.to(compute)
    h, derivative = gelu_and_slope(u, form or form_for(x.dtype))
    return h.to(x.dtype), derivative.to(x.dtype) if slope else None


def linear_gelu_backward(upstream: Tensor, weight: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`fastamr.ops.linear_gelu_backward`."""
    compute = torch.promote_types(torch.float32, upstream.dtype)
    du = upstream.to(compute) @ weight.to(compute) * slope.to(compute)
    return du.to(upstream.dtype), du.sum(0)
