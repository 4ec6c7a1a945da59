"""Means over what exists: the tokens of a body, the bodies of a clip."""

from __future__ import annotations

import torch
from torch import Tensor

from ...ops.common.checks import are_values_checked, check_indices


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


def average_bodies(features: Tensor, owner: Tensor, count: int | None = None) -> Tensor:
    """Mean over the bodies of each clip.

    Args:
        features: ``(S, F)``, one body a row.
        owner: ``(S,)`` int64, the clip of each body, from 0; every clip has a body.
        count: B, the number of clips. Nothing is then read back from a GPU, rows with an owner of -1 belong to no clip
            (they fill a batch up to a fixed size), and a clip without a body has zeros on a GPU. None counts them.

    Returns:
        ``(B, F)``.

    Raises:
        ValueError: owners that do not fit, or a clip without a body (with ``count``: on a CPU).
    """
    if owner.shape != features.shape[:1] or owner.dtype != torch.int64:
        raise ValueError(
            f"owner has shape {tuple(owner.shape)} and dtype {owner.dtype}, expected ({len(features)},) int64: "
            "one clip index a body"
        )
    if count is None:
        counts = torch.bincount(owner)
        _check_owned(counts)
        total = features.new_zeros(len(counts), features.shape[1]).index_add(0, owner, features)
        return total / counts[:, None]
    if are_values_checked(owner):
        check_indices("owner", torch.where(owner == -1, 0, owner), count, "clip")
    # Rows of no clip are added up in a last row of their own.
    place = torch.where(owner < 0, count, owner)
    counts = owner.new_zeros(count + 1).index_add(0, place, torch.ones_like(place))[:count]
    if are_values_checked(owner):
        _check_owned(counts)
    total = features.new_zeros(count + 1, features.shape[1]).index_add(0, place, features)[:count]
    return total / counts.clamp(min=1)[:, None]


def _check_owned(counts: Tensor) -> None:
    """Raise for a clip without a body."""
    if bool((counts == 0).any()):
        clip = int((counts == 0).nonzero()[0])
        raise ValueError(f"owner names no body of clip {clip}: number the clips of a batch without gaps")
