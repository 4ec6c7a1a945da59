"""PyTorch's other attentions on the packed projections of the op: ``varlen_attn`` and FlexAttention, where they run."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

RIVALS = ("varlen", "flex")
_MODULES = {"varlen": "torch.nn.attention.varlen", "flex": "torch.nn.attention.flex_attention"}


def why_not(rival: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why a rival does not run on a device, or None if it does.

    Args:
        rival: one of :data:`RIVALS`.
        device: where.
        dtype: of the projections.
    """
    try:
        importlib.import_module(_MODULES[rival])
    except ImportError as error:
        return f"this PyTorch has no {_MODULES[rival]}: {error}"
    if device.type != "cuda":
        return {
            "varlen": "varlen_attn runs on a GPU only",
            "flex": "FlexAttention has no backward on a CPU, and compiling it there takes minutes",
        }[rival]
    if rival == "varlen" and dtype not in (torch.float16, torch.bfloat16):
        return "varlen_attn takes 16-bit values only"
    if rival == "varlen" and torch.cuda.get_device_capability(device) < (8, 0):
        return "varlen_attn needs compute capability 8.0"
    return None


def varlen(inputs: Sequence[Tensor]) -> Tensor:
    """Attention by ``varlen_attn``: all sequences one after another, told apart by where each begins.

    Args:
        inputs: the packed ``q, k, v (S, K, 3, H, D)``, or ``q (S, Q, H, D)`` and the packed ``k, v (S, K, 2, H, D)``.

    Returns:
        ``(S, Q, H * D)``.
    """
    attend = importlib.import_module(_MODULES["varlen"]).varlen_attn
    q, k, v = _split(inputs)
    count, queries, keys = len(q), q.shape[1], k.shape[1]
    starts = [_starts(count, length, q.device) for length in (queries, keys)]
    out = attend(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), *starts, queries, keys)
    return out.view(count, queries, -1)


def flex(inputs: Sequence[Tensor], attend: Callable[..., Any] | None = None) -> Tensor:
    """Attention by FlexAttention without a mask, compiled.

    Args:
        inputs: as for :func:`varlen`.
        attend: another form of it, for example the one that is not compiled.

    Returns:
        ``(S, Q, H * D)``.
    """
    q, k, v = (each.transpose(1, 2) for each in _split(inputs))
    return (attend or _compiled())(q, k, v).transpose(1, 2).flatten(2)


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(importlib.import_module(_MODULES["flex"]).flex_attention, dynamic=False)


@functools.cache
def _starts(count: int, length: int, device: torch.device) -> Tensor:
    """Where each sequence begins, and the end, ``(S + 1,)`` int32; made once, as a model would."""
    return torch.arange(0, (count + 1) * length, length, dtype=torch.int32, device=device)


def _split(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    if len(inputs) == 1:
        q, k, v = inputs[0].unbind(2)
        return q, k, v
    k, v = inputs[1].unbind(2)
    return inputs[0], k, v
