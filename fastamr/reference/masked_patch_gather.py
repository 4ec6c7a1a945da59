"""Embed the visible patches only: gather, project, add bias and position."""

from __future__ import annotations

import torch
from torch import Tensor

from .patch_gather import patch_gather


def masked_patch_gather(
    clips: Tensor,
    keep: Tensor,
    weight: Tensor,
    bias: Tensor,
    position: Tensor,
    *,
    patch_frames: int,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """Tokens ``(S, K, D)`` of the visible patches; see :func:`fastamr.ops.masked_patch_gather`."""
    compute = torch.promote_types(torch.float32, torch.promote_types(clips.dtype, weight.dtype))
    patches = patch_gather(clips, keep, patch_frames=patch_frames).to(compute)
    tokens = patches @ weight.to(compute).T + bias.to(compute) + position.to(compute)[keep.long()]
    return tokens.to(out_dtype or compute)


def masked_patch_gather_backward(
    grad: Tensor, clips: Tensor, keep: Tensor, tokens: int, *, patch_frames: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight ``(D, l*C)``, bias ``(D,)`` and position ``(tokens, D)`` from ``grad (S, K, D)``."""
    compute = torch.promote_types(torch.float32, dtype)
    rows = grad.to(compute).reshape(-1, grad.shape[-1])
    patches = patch_gather(clips, keep, patch_frames=patch_frames).to(compute).flatten(0, 1)
    position = rows.new_zeros(tokens, rows.shape[1]).index_add_(0, keep.long().flatten(), rows)
    return (rows.T @ patches).to(dtype), rows.sum(0).to(dtype), position.to(dtype)
