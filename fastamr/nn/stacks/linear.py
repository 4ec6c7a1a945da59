"""A linear layer beside a fused stack: the optimizer's copies of weight and bias in, float32 gradients out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ... import ops
from ...ops.common.backends import Problem
from .layers import Linear
from .path import call_why_not, compute_dtype
from .working_weights import working_weight


class WorkingLinear(nn.Linear):
    """``nn.Linear`` that under autocast casts nothing which the optimizer keeps a copy of.

    ``nn.Linear`` under autocast casts weight and bias in every forward, and its gradients back in every backward. This
    one computes with the copies that the optimizer's last update wrote (:mod:`.working_weights`), and its gradients
    are summed in float32 and stay so. Without autocast, where the code is traced, and where
    ``fastamr.backend(transformer_stack="reference")`` asks for plain layers, it is ``nn.Linear``. Same parameters, same
    ``state_dict``.

    Shapes:
        ``(S, N, D)`` to ``(S, N, F)``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """See the class; the gradients are first derivatives where it is not ``nn.Linear``."""
        dtype = compute_dtype(input)
        problem = Problem(input.device.type, dtype)
        narrow = torch.is_autocast_enabled(input.device.type) and dtype.itemsize < self.weight.itemsize
        fits = narrow and self.bias is not None and self.weight.device == input.device
        if not fits or call_why_not((input,)) is not None or ops.choose_stack(problem) == "reference":
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            layer = Linear(working_weight(self.weight, dtype), working_weight(self.bias, dtype))
            out: Tensor = _Function.apply(layer, input.to(dtype), self.weight, self.bias)
        return out


class _Function(torch.autograd.Function):
    """``apply(layer, x (S, N, D), weight, bias)``; the parameters are only what autograd ties the gradients to."""

    @staticmethod
    def forward(ctx: Any, layer: Linear, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        ctx.dtypes = weight.dtype, bias.dtype
        ctx.save_for_backward(rows, layer.weight)
        return ops.row_linear(rows, *layer).view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        upstream = grad.reshape(-1, grad.shape[-1]).contiguous()
        _, wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        weight_dtype, bias_dtype = ctx.dtypes
        dx = ops.row_linear_backward(upstream, weight) if wants_x else None
        return (
            None,
            None if dx is None else dx.view(*grad.shape[:-1], -1),
            ops.weight_gradient(upstream, rows).to(weight_dtype) if wants_weight else None,
            upstream.sum(0, dtype=bias_dtype) if wants_bias else None,
        )
