"""The labelled halves of a split, and what a person should know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..data.packed.checks import check_not_zero
from ..data.packed.split import make_split

if TYPE_CHECKING:
    from ..data import PackedSkeletons

# Names of clips of a class, and classes, that a line lists.
_SHOWN, _CLASSES = 3, 5


def labelled_split(data: PackedSkeletons, name: str) -> tuple[Tensor, Tensor]:
    """Return the labelled training and test clips of a split as two ``(N,)`` bool masks.

    Raises:
        ValueError: no such split, no label in the data, or a half without labelled clips.
    """
    labelled = labelled_clips(data)
    split = data.split(name)
    halves = split.train & labelled, split.test & labelled
    for what, mask, half in zip(("training", "test"), halves, (split.train, split.test), strict=True):
        if not bool(mask.any()):
            others = sorted(one for one in data.splits if one != name)
            raise ValueError(
                f"split {name!r} has no labelled {what} clip ({int(half.sum())} without a label): "
                f"{f'choose one of {others}, or ' if others else ''}{make_split()}"
            )
    return halves


def training_split(data: PackedSkeletons, name: str | None) -> tuple[Tensor, Tensor]:
    """Return the clips to train on and to test on: those of :func:`labelled_split`, or all labelled ones and none.

    Args:
        data: the packed data.
        name: the split; None trains on every labelled clip.

    Raises:
        ValueError: as :func:`labelled_split`; all clips to train on are of one class, so that nothing can be learnt;
            or all their coordinates are 0.
    """
    if name is not None:
        train, test = labelled_split(data, name)
    else:
        train = labelled_clips(data)
        test = train & ~train
    found = data.labels[train].unique().tolist()
    if len(found) < 2:
        name = repr(data.label_names[found[0]]) if data.label_names else found[0]
        raise ValueError(
            f"all {int(train.sum())} labelled training clips are of class {name}, and two classes are needed: add "
            "clips of another class, or name another --split"
        )
    check_not_zero(data, train[data.body_clip].nonzero()[:, 0])
    return train, test


def labelled_clips(data: PackedSkeletons) -> Tensor:
    """Return which clips have a label ``(N,)`` bool.

    Raises:
        ValueError: none has.
    """
    labelled = data.labels >= 0
    if not bool(labelled.any()):
        raise ValueError(
            f"none of the {data.num_clips} clips has a label: import the data with labels (fastamr import SOURCE OUT "
            "--labels folder, where folders are classes, or --labels FILE)"
        )
    return labelled


def describe_halves(data: PackedSkeletons, name: str | None, halves: tuple[Tensor, Tensor]) -> str:
    """Return a line that says how many clips are labelled and which are left out.

    Args:
        data: the packed data.
        name: the split; None = every clip trains.
        halves: ``(N,)`` bool masks, see :func:`training_split`.
    """
    train, test = halves
    known, classes = data.labels >= 0, int(data.labels[train].unique().numel())
    what = "all clips train" if name is None else f"split {name!r}"
    line = f"{what}: {int(train.sum())} training and {int(test.sum())} test clips with a label, {classes} classes"
    missing, neither = int((~known).sum()), int((known & ~(train | test)).sum())
    line += f"; {missing} without a label are left out" if missing else ""
    return line + (f"; {neither} in neither half are left out" if neither else "")


def untrained_classes(data: PackedSkeletons, halves: tuple[Tensor, Tensor]) -> list[str]:
    """Return one line where classes are tested that no training clip has, with their clips; else nothing."""
    train, test = halves
    trained = data.labels[train].unique().tolist()
    lacking = [label for label in data.labels[test].unique().tolist() if label not in trained]
    texts = []
    for label in lacking:
        clips = (test & (data.labels == label)).nonzero()[:, 0].tolist()
        named = ", ".join(data.names[clip] for clip in clips[:_SHOWN]) + (
            ", ..." if len(clips) > _SHOWN else ""
        )
        name = repr(data.label_names[label]) if data.label_names else f"class {label}"
        texts.append(f"{name} ({len(clips)} clip{'s'[: len(clips) != 1]}: {named})")
    if not texts:
        return []
    if len(texts) > _CLASSES:
        texts[_CLASSES:] = [f"and {len(texts) - _CLASSES} more classes"]
    count = sum(int((test & (data.labels == label)).sum()) for label in lacking)
    return [
        f"{count} test clips are of classes that no training clip has, so that they count as wrong: {'; '.join(texts)}"
    ]
