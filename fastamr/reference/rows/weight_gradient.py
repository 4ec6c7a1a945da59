"""Gradient of a linear layer's weight: a product over all rows, summed in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def weight_gradient(upstream: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """See :func:`fastamr.ops.weight_gradient`."""
    compute = torch.promote_types(torch.float32, upstream.dtype)
    return torch.mm(upstream.to(compute).T, x.to(compute), out=out)
