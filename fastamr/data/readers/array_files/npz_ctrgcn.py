"""The npz of MAMP and CTR-GCN for NTU RGB+D and PKU-MMD: two halves, padded with zeros.

``x_train``, ``x_test``: ``(N, T, 150)``, two bodies of 25 joints in 3 channels; ``y_train``, ``y_test``: one-hot
``(N, K)``, class indices ``(N,)`` or ``(N, 1)``, or text.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ....skeleton import get_layout
from ...packed.dataset import PackedSkeletons, Split
from ..common.arrays import class_column, class_labels, texts, trim_padding
from ..common.npz import holds_arrays, member_headers, read_blocks, read_member
from ..common.reader import Reader, Reading, Source

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_LAYOUT, _CHANNELS, _FPS = "ntu25", 3, 30.0


def read(source: Source) -> Reading:
    """Read a file of this layout, in pieces, so that the padding never lies in memory.

    Trailing frames of zeros are padding and go. The halves become the split ``official``, and the clips are named
    ``train0``, ``train1``, ..., ``test0``, ... The Kinect's 30 frames a second are assumed (choice).

    Raises:
        ValueError: the file is damaged, its arrays do not fit together, or a label is no class (which row).
    """
    path = source.path
    clips: list[np.ndarray] = []
    labels, names = [], []
    for half in ("train", "test"):
        start = len(clips)
        for block in read_blocks(path, f"x_{half}"):
            clips += trim_padding(_bodies(path, f"x_{half}", block))
        count = len(clips) - start
        labels.append(_labels(path, half, count))
        names += [f"{half}{place}" for place in range(count)]
    train = torch.arange(len(clips)) < len(labels[0])
    headers = source.parsed(member_headers)
    named = "label_names" in headers and not headers["label_names"][1].hasobject
    known = texts(read_member(path, "label_names")) if named else ()
    if labels[0].dtype.kind != labels[1].dtype.kind:
        raise ValueError(
            f"{path}: one of y_train and y_test is text and the other is not; give both in one form"
        )
    indices, classes = class_labels(np.concatenate(labels), f"{path}, y_train and y_test", known)
    rest = [name for name in headers if name not in (*REQUIRED, *["label_names"] * named)]
    data = PackedSkeletons.from_clips(
        clips,
        layout=_LAYOUT,
        labels=indices,
        label_names=classes,
        fps=_FPS,
        names=names,
        splits={"official": Split(train, ~train)},
    )
    return Reading(data, notes=[f"arrays that are not read: {', '.join(sorted(rest))}"] * bool(rest))


READER = Reader(
    "npz", (".npz",), read, holds_arrays(*REQUIRED), holds=(f"{', '.join(REQUIRED)} (MAMP, CTR-GCN)",)
)


def _bodies(path: Path, name: str, block: np.ndarray) -> np.ndarray:
    """Return a block of clips as ``(n, T, M, V, C)``."""
    joints = get_layout(_LAYOUT).num_joints
    width = joints * _CHANNELS
    if block.ndim != 3 or block.shape[2] not in (width, 2 * width):
        raise ValueError(
            f"{path}: {name} has shape (N, {', '.join(map(str, block.shape[1:]))}), expected (N, T, {2 * width}): "
            f"two bodies of {joints} joints in {_CHANNELS} channels"
        )
    return block.reshape(*block.shape[:2], -1, joints, _CHANNELS)


def _labels(path: Path, half: str, count: int) -> np.ndarray:
    """Return ``(count,)`` int64 class indices or text; a one-hot row of zeros is unknown."""
    return class_column(read_member(path, f"y_{half}"), count, f"{path}: y_{half}")
