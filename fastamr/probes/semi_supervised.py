"""Few labels: which training clips keep theirs."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def labelled_subset(labels: Tensor, train: Tensor, share: float, seed: int) -> Tensor:
    """Choose a class-balanced share of the training clips.

    Every class gives the same number of clips, ``share * clips / classes`` rounded and at least 1; a class that has
    fewer gives all of them. Within a class the clips are ranked by a hash of seed and clip index, so that the choice
    depends on nothing else: not on the number of processes, the device or the version of a random generator (the
    public code of MAMP draws once a process: four of them saw 3.9 % as "1 %"). With one seed a smaller share is part
    of a larger one.

    Args:
        labels: ``(N,)`` int64 class indices; below 0 = none.
        train: ``(N,)`` bool, the clips to choose from.
        share: above 0 and at most 1.
        seed: fixes the choice.

    Returns:
        ``(N,)`` bool, on the device of the labels.

    Raises:
        ValueError: a share out of range, or no labelled training clip.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must be above 0 and at most 1, for example 0.01 for 1 %")
    if train.shape != labels.shape or train.dtype != torch.bool:
        raise ValueError(
            f"train has shape {tuple(train.shape)} and dtype {train.dtype}, expected {tuple(labels.shape)} bool: "
            "one mark a clip"
        )
    marked = (train.cpu() & (labels.cpu() >= 0)).nonzero()[:, 0].tolist()
    if not marked:
        raise ValueError("train marks no labelled clip: choose another split, or import the data with labels")
    ranked: dict[int, list[int]] = {}
    for clip in sorted(marked, key=lambda clip: hashlib.sha256(f"{seed} {clip}".encode()).digest()):
        ranked.setdefault(int(labels[clip]), []).append(clip)
    each = max(1, round(share * len(marked) / len(ranked)))
    chosen = torch.zeros(labels.shape, dtype=torch.bool)
    chosen[[clip for clips in ranked.values() for clip in clips[:each]]] = True
    return chosen.to(labels.device)
