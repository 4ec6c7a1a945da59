"""Means over what exists: the tokens of a body, the bodies of a clip."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_tokens(tokens: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean over the second dimension, of the known tokens where there is any.

    Args:
        tokens: ``(S, N, ..., D)``.
        known: ``(S, N, ...)`` bool, the tokens that count; None counts all. Where none is known, all count.

    Returns:
        ``(S, ..., D)``, float32 for 16-bit tokens: a mean of hundreds is more exact than each of them.
    """
    compute = torch.promote_types(torch.float32, tokens.dtype)
    if known is None:
        return tokens.mean(1, dtype=compute)
    mask = (known | ~known.any(1, keepdim=True))[..., None]
    return (tokens * mask).sum(1, dtype=compute) / mask.sum(1)


def average_bodies(features: Tensor, owner: Tensor, clips: int | None = None) -> Tensor:
    """Mean over the bodies of each clip.

    Args:
        features: ``(S, F)``, one body a row.
        owner: ``(S,)`` int64, the clip of each body, from 0; every clip has a body.
        clips: B, where it is known: nothing is read by the host then, a clip without a body here gets zeros, and
            bodies of clip B are left out.

    Returns:
        ``(B, F)``.

    Raises:
        ValueError: owners that do not fit, or a clip without a body.
    """
    if owner.shape != features.shape[:1] or owner.dtype != torch.int64:
        raise ValueError(
            f"owner has shape {tuple(owner.shape)} and dtype {owner.dtype}, expected ({len(features)},) int64: "
            "one clip index a body"
        )
    if clips is not None:
        known = torch.zeros(clips + 1, dtype=features.dtype, device=features.device)
        known.index_add_(0, owner, known.new_ones(len(owner)))
        summed = features.new_zeros(clips + 1, features.shape[1]).index_add(0, owner, features)
        return (summed / known.clamp(min=1)[:, None])[:clips]
    counts = torch.bincount(owner)
    if bool((counts == 0).any()):
        clip = int((counts == 0).nonzero()[0])
        raise ValueError(f"owner names no body of clip {clip}: number the clips of a batch without gaps")
    total = features.new_zeros(len(counts), features.shape[1]).index_add(0, owner, features)
    return total / counts[:, None]
