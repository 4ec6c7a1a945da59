"""What a classifier keeps of the clips that it was trained on, for whoever uses it on others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..data import PackedSkeletons


def describe_training(data: PackedSkeletons, train: Tensor) -> dict[str, Any]:
    """Return what ``ActionClassifier(training_data=...)`` keeps.

    Args:
        data: packed data, pre-processed as for the classifier.
        train: ``(N,)`` bool mask or int64 indices of its training clips.

    Returns:
        ``clips``, their number; ``fps``, the median of the known frame rates; ``median_frames`` and
        ``median_seconds`` of a clip, from the first frame of its bodies to the last one; ``channels``. A rate that no
        clip tells is None, and so are the seconds.
    """
    chosen = torch.zeros(data.num_clips, dtype=torch.bool, device=data.device)
    chosen[train.to(data.device)] = True
    frames = _spans(data)[chosen].double()
    rates = data.fps[chosen].double()
    known = rates > 0
    some = bool(known.any())
    return {
        "clips": int(chosen.sum()),
        "fps": round(float(rates[known].median()), 4) if some else None,
        "median_frames": int(frames.median()),
        "median_seconds": round(float((frames[known] / rates[known]).median()), 4) if some else None,
        "channels": data.coords.shape[-1],
    }


def _spans(data: PackedSkeletons) -> Tensor:
    """Return the frames of each clip ``(N,)`` int64 from its first body's first to its last body's last one."""
    first = torch.full_like(data.labels, torch.iinfo(torch.int64).max)
    first.scatter_reduce_(0, data.body_clip, data.body_start, "amin")
    return data.clip_frames() - first
