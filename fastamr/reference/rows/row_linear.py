"""A linear layer of flat rows, with products and bias summed in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def row_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See :func:`fastamr.ops.row_linear`."""
    compute = torch.promote_types(torch.float32, x.dtype)
    return (x.to(compute) @ weight.to(compute).T + bias.to(compute)).to(x.dtype)


def row_linear_backward(upstream: Tensor, weight: Tensor) -> Tensor:
    """See :func:`fastamr.ops.row_linear_backward`."""
    compute = torch.promote_types(torch.float32, upstream.dtype)
    return (upstream.to(compute) @ weight.to(compute)).to(upstream.dtype)
