"""Linear layer, residual addition and layer norm in one, and the backward through the next linear layer."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_residual_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float = 1e-5,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.linear_residual_norm`."""
    compute = torch.promote_types(torch.float32, x.dtype)
    branch = x.to(compute) @ weight.to(compute).T + bias.to(compute)
    if scale is not None:
        branch = branch * scale[:, None]
    total = (residual.to(compute) + branch).to(x.dtype)
    # The statistics are those of the rounded sum, which is what the backward reads.
    rounded = total.to(compute)
    mean = rounded.mean(1)
    centred = rounded - mean[:, None]
    rstd = (centred.square().mean(1) + eps).rsqrt()
    normed = centred * rstd[:, None] * gamma.to(compute) + beta.to(compute)
    return total, normed.to(x.dtype), mean, rstd


def linear_residual_norm_backward(
    upstream: Tensor,
    weight: Tensor,
    total: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    skip: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """See :func:`fastamr.ops.linear_residual_norm_backward`."""
    compute = torch.promote_types(torch.float32, upstream.dtype)
    dnormed = upstream.to(compute) @ weight.to(compute)
    standard = (total.to(compute) - mean[:, None]) * rstd[:, None]
    scaled = dnormed * gamma.to(compute)
    along = (scaled * standard).mean(1, keepdim=True)
    dx = (scaled - scaled.mean(1, keepdim=True) - standard * along) * rstd[:, None]
    if skip is not None:
        dx = dx + skip.to(compute)
    sums = (dnormed * standard).sum(0), dnormed.sum(0)
    if scale is None:
        return dx.to(upstream.dtype), *sums, dx.sum(0)
    dbranch = dx * scale[:, None]
    return dx.to(upstream.dtype), *sums, dbranch.sum(0), dbranch.to(upstream.dtype)
