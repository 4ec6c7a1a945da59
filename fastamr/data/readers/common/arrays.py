"""Arrays in memory, padded with zeros to one number of frames and bodies."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons


def from_batch(batch: Any, *, layout: str | SkeletonLayout, **fields: Any) -> PackedSkeletons:
    """Pack a padded batch of clips in the field's layout.

    Args:
        batch: ``(N, C, T, V, M)`` real numbers, metres; a clip ends at its last frame that is not all 0.
        layout: the skeleton, or its name.
        fields: labels, names, splits, ... as in :meth:`PackedSkeletons.from_clips`.

    Raises:
        ValueError: ``batch`` has not five dimensions, or as :meth:`PackedSkeletons.from_clips`.
    """
    padded = np.asarray(batch)
    if padded.ndim != 5:
        raise ValueError(f"batch has shape {padded.shape}, expected (N, C, T, V, M)")
    return PackedSkeletons.from_clips(trim_padding(padded.transpose(0, 2, 4, 3, 1)), layout=layout, **fields)


def trim_padding(padded: np.ndarray) -> list[np.ndarray]:
    """Cut each clip after its last frame that is not all 0.

    Args:
        padded: ``(N, T, M, V, C)``.

    Returns:
        ``N`` copies ``(T_i, M, V, C)``, so that the padded array can be freed; an empty clip has ``T_i = 0``.
    """
    present = (padded != 0).any(axis=(2, 3, 4))
    # The first True from the end; an empty clip has none.
    lengths = np.where(present.any(1), padded.shape[1] - present[:, ::-1].argmax(1), 0)
    return [clip[:length].copy() for clip, length in zip(padded, lengths, strict=True)]
