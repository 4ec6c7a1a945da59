"""The labelled halves of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ..data import PackedSkeletons


def labelled_split(data: PackedSkeletons, name: str) -> tuple[Tensor, Tensor]:
    """Return the labelled training and test clips of a split as two ``(N,)`` bool masks.

    Raises:
        ValueError: no such split, no label in the data, or a half without labelled clips.
    """
    labelled = data.labels >= 0
    if not bool(labelled.any()):
        raise ValueError(
            f"none of the {data.num_clips} clips has a label: import the data with labels to evaluate on it"
        )
    split = data.split(name)
    halves = split.train & labelled, split.test & labelled
    for what, mask in zip(("training", "test"), halves, strict=True):
        if not bool(mask.any()):
            raise ValueError(
                f"split {name!r} has no labelled {what} clip: choose one of {sorted(data.splits)}"
            )
    return halves
