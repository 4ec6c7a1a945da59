"""The npz layout of the collected data sets: ragged frames of all sequences in one array.

``x (sum_T, M, V, C)`` times ``x_scale`` are metres, ``offsets (N+1,)`` says where sequences start; ``label``,
``label_names``, ``joint_names``, ``parents``, ``fps``, ``name`` and further fields of ``N`` values describe them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons, Split
from ..common.npz import holds_arrays, member_names, read_member
from ..common.reader import Reader, Reading, Source

REQUIRED = ("x", "offsets", "joint_names", "parents")
_SPLITS = ("is_train", "is_train_repo", "is_train_dedup", "fold")
_KNOWN = {*REQUIRED, "x_scale", "label", "label_names", "fps", "name"}


def read(source: Source) -> Reading:
    """Read a file of this layout.

    A layout whose joints and parents are those of a built-in one takes its name (NW-UCLA: ``kinect20``). Fields of
    ``N`` values become columns, or splits: ``official`` from ``is_train`` (or ``is_train_repo``), ``dedup`` from
    ``is_train_dedup`` (its test half is the official one), ``fold0``, ``fold1``, ... from ``fold``.

    Raises:
        ValueError: the file is damaged, or its arrays do not fit together.
    """
    path = source.path
    arrays = {name: read_member(path, name) for name in sorted(source.parsed(member_names))}
    offsets, x = arrays["offsets"], arrays["x"]
    _check(path, offsets, x)
    count = len(offsets) - 1
    scale = np.float32(arrays.get("x_scale", 1.0))
    layout = SkeletonLayout.from_joints(
        path.stem,
        [str(joint) for joint in arrays["joint_names"]],
        [int(parent) for parent in arrays["parents"]],
    )
    fields = {
        name: values
        for name, values in arrays.items()
        if name not in _KNOWN and not name.endswith("_names") and values.shape == (count,)
    }
    names = arrays.get("name")
    data = PackedSkeletons.from_clips(
        [x[start:end] * scale for start, end in pairwise(offsets)],
        layout=layout,
        labels=arrays.get("label"),
        label_names=[str(label) for label in arrays.get("label_names", ())],
        fps=arrays.get("fps"),
        names=None if names is None else [str(name) for name in names],
        columns={name: values for name, values in fields.items() if name not in _SPLITS},
        column_names={
            name: [str(text) for text in arrays[f"{name}_names"]]
            for name in fields
            if f"{name}_names" in arrays
        },
        splits=_splits(fields),
    )
    return Reading(data)


READER = Reader("npz", (".npz",), read, holds_arrays(*REQUIRED), holds=(", ".join(REQUIRED),))


def _check(path: Path, offsets: np.ndarray, x: np.ndarray) -> None:
    if x.ndim != 4:
        raise ValueError(f"{path}: x has shape {x.shape}, expected (frames, bodies, joints, channels)")
    if offsets.ndim != 1 or len(offsets) < 2:
        raise ValueError(
            f"{path}: offsets has shape {offsets.shape}, expected (sequences + 1,): the data set is empty"
        )
    if offsets[0] != 0 or offsets[-1] != len(x) or (np.diff(offsets) < 0).any():
        raise ValueError(
            f"{path}: offsets goes from {offsets[0]} to {offsets[-1]}, expected to rise from 0 to the {len(x)} "
            f"frames of x"
        )


def _splits(fields: dict[str, np.ndarray]) -> dict[str, Split]:
    def split(train: np.ndarray, test: np.ndarray) -> Split:
        return Split(torch.from_numpy(train.astype(bool)), torch.from_numpy(test.astype(bool)))

    splits = {}
    official = fields.get("is_train", fields.get("is_train_repo"))
    if official is not None:
        splits["official"] = split(official, official == 0)
        if "is_train_dedup" in fields:
            splits["dedup"] = split(fields["is_train_dedup"], official == 0)
    for fold in np.unique(fields.get("fold", [])):
        splits[f"fold{int(fold)}"] = split(fields["fold"] != fold, fields["fold"] == fold)
    return splits
