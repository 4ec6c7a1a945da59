"""PyTorch's fused attention without autograd: forward and backward as two calls, gradients written where they belong.

``F.scaled_dot_product_attention`` under autograd leaves its gradients in tensors of its own, which are then unbound,
stacked, copied and summed one after the other. Which of PyTorch's kernels runs is PyTorch's choice here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from ..common.backends import Problem
from ..common.column_sums import ColumnSums
from ..common.planning import device_type_of, planned_device
from ..common.triton_support import MOST_ROW_WIDTH, triton_why_not

_KERNELS = {
    SDPBackend.FLASH_ATTENTION.value: "flash",
    SDPBackend.EFFICIENT_ATTENTION.value: "efficient",
    SDPBackend.CUDNN_ATTENTION.value: "cudnn",
}
# On a GPU flash attention pads heads of other sizes, which only PyTorch's own function does around it.
_HEAD_MULTIPLE = 8


class SdpaState(NamedTuple):
    """What the backward reads beside inputs and output.

    Attributes:
        kernel: ``cpu``, ``flash``, ``efficient`` or ``cudnn``.
        scale: of the scores.
        rest: the other results of the forward, as the backward takes them.
    """

    kernel: str
    scale: float
    rest: tuple[Any, ...]


def _heads_first(q: Tensor, kv: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Views ``(S, H, N, E)`` of packed projections."""
    parts = q.unbind(2) if kv is None else (q, *kv.unbind(2))
    query, key, value = (part.transpose(1, 2) for part in parts)
    return query, key, value


def _kernel_for(q: Tensor, k: Tensor, v: Tensor, scale: float) -> str | None:
    if planned_device() is not None:
        return "cpu"  # a GPU's are not called with tensors without values; this one stands for them
    kernel = _KERNELS.get(torch._fused_sdp_choice(q, k, v, scale=scale))
    if q.device.type == "cpu":
        return "cpu" if kernel == "flash" else None
    if q.device.type != "cuda" or (kernel == "flash" and q.shape[-1] % _HEAD_MULTIPLE):
        return None
    return kernel


def sdpa_forward(q: Tensor, kv: Tensor | None, scale: float) -> tuple[Tensor, SdpaState] | None:
    """Attention of ``qkv (S, K, 3, H, E)``, or of ``q (S, Q, H, E)`` over ``kv (S, K, 2, H, E)``, without autograd.

    Args:
        q: as above, any float dtype.
        kv: as above.
        scale: factor of the scores.

    Returns:
        ``(S, Nq, H*E)`` and what :func:`sdpa_backward_into` needs; None where PyTorch takes a kernel whose backward
        cannot be called by itself: then autograd must record it.
    """
    query, key, value = _heads_first(q, kv)
    kernel = _kernel_for(query, key, value, scale)
    if kernel is None:
        return None
    out, rest = _forward(kernel, query, key, value, scale)
    return out.transpose(1, 2).flatten(2), SdpaState(kernel, scale, rest)


def _forward(
    kernel: str, query: Tensor, key: Tensor, value: Tensor, scale: float
) -> tuple[Tensor, tuple[Any, ...]]:
    aten = torch.ops.aten
    if kernel == "cpu":
        out, *rest = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)
    elif kernel == "flash":
        # Sizes and random state follow; what is last is for debugging.
        out, *rest = aten._scaled_dot_product_flash_attention(query, key, value, scale=scale)[:8]
    elif kernel == "cudnn":
        out, *rest = aten._scaled_dot_product_cudnn_attention(query, key, value, None, True, scale=scale)[:8]
    else:
        out, *rest = aten._scaled_dot_product_efficient_attention(query, key, value, None, True, scale=scale)
    return out, tuple(rest)


def _backward(
    grad: Tensor, out: Tensor, state: SdpaState, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of q, k and v, all ``(S, H, N, E)``."""
    kernel, scale, rest = state
    aten, given = torch.ops.aten, (grad, q, k, v)
    if kernel == "cpu":
        (lse,) = rest
        found = aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *given, out, lse, 0.0, False, scale=scale
        )
    elif kernel in ("flash", "cudnn"):
        lse, *sizes, seed, offset = rest
        if kernel == "flash":
            function = aten._scaled_dot_product_flash_attention_backward
            found = function(*given, out, lse, *sizes, 0.0, False, seed, offset, scale=scale)
        else:
            function = aten._scaled_dot_product_cudnn_attention_backward
            found = function(*given, out, lse, seed, offset, None, *sizes, 0.0, False, scale=scale)
    else:
        lse, seed, offset = rest
        found = aten._scaled_dot_product_efficient_attention_backward(
            *(*given, None, out, lse, seed, offset), 0.0, [True, True, True, False], scale=scale
        )
    return tuple(found[:3])


def sdpa_backward_into(
    grad: Tensor,
    out: Tensor,
    state: SdpaState,
    q: Tensor,
    kv: Tensor | None,
    *,
    dq: Tensor,
    dkv: Tensor | None,
    columns: ColumnSums | None = None,
) -> list[Tensor]:
    """Write the gradients of :func:`sdpa_forward`'s inputs, and return their sums over sequences and tokens.

    Args:
        grad: gradient of the output ``(S, Nq, H*E)``.
        out: the output.
        state: of the forward.
        q: as in the forward.
        kv: as in the forward.
        dq: of q's shape, heads one contiguous row, other strides free; overwritten.
        dkv: of kv's shape, likewise.
        columns: adds the sums up in its ``finish()``, before which they hold nothing; None adds them up now.

    Returns:
        The sums ``(3*H*E)`` of qkv's gradient, or ``(H*E)`` of q's and ``(2*H*E)`` of kv's, float32 (float64 for
        float64).
    """
    heads = q.shape[-2:]
    grad, out = (each.unflatten(-1, heads).transpose(1, 2) for each in (grad, out))
    found = _backward(grad, out, state, *_heads_first(q, kv))
    if dkv is None:
        return [_write(found, dq, columns)]
    return [_write(found[:1], dq.unsqueeze(2), columns), _write(found[1:], dkv, columns)]


def _write(found: Sequence[Tensor], target: Tensor, columns: ColumnSums | None) -> Tensor:
    """Gradients ``(S, H, N, E)`` side by side into ``(S, N, P, H, E)``, and the sums ``(P*H*E)`` of their columns."""
    problem = Problem(device_type_of(target), target.dtype)
    fits = target.shape[3] * target.shape[4] <= MOST_ROW_WIDTH
    if problem.device_type == "cuda" and fits and triton_why_not(problem) is None:
        from ...kernels.packed_gradients import packed_gradients

        return packed_gradients(found, target, columns)
    torch.stack([each.transpose(1, 2) for each in found], 2, out=target)
    # Over one dimension, whose order of summation is that of the gradients themselves.
    return target.flatten(0, 1).sum(0, dtype=torch.promote_types(torch.float32, target.dtype)).flatten()
