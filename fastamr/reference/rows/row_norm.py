"""Layer norm of flat rows that also gives the rows' statistics, and its backward with all column sums."""

from __future__ import annotations

import torch
from torch import Tensor


def row_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.row_norm`."""
    compute = torch.promote_types(torch.float32, x.dtype)
    values = x.to(compute)
    mean = values.mean(1)
    centred = values - mean[:, None]
    rstd = (centred.square().mean(1) + eps).rsqrt()
    normed = centred * rstd[:, None] * gamma.to(compute) + beta.to(compute)
    return normed.to(x.dtype), mean, rstd


def row_norm_backward(
    upstream: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor, skip: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`fastamr.ops.row_norm_backward`."""
    compute = torch.promote_types(torch.float32, upstream.dtype)
    dnormed = upstream.to(compute)
    standard = (x.to(compute) - mean[:, None]) * rstd[:, None]
    scaled = dnormed * gamma.to(compute)
    along = (scaled * standard).mean(1, keepdim=True)
    dx = (scaled - scaled.mean(1, keepdim=True) - standard * along) * rstd[:, None]
    if skip is not None:
        dx = dx + skip.to(compute)
    return dx.to(upstream.dtype), (dnormed * standard).sum(0), dnormed.sum(0), dx.sum(0)
