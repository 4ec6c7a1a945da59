"""The npz layout of the collected data sets: ragged frames of all sequences in one array.

``x (sum_T, M, V, C)`` times ``x_scale`` are metres, ``offsets (N+1,)`` says where sequences start; ``label``,
``label_names``, ``joint_names``, ``parents``, ``fps``, ``name`` and further fields of ``N`` values describe them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons, Split
from ..common.arrays import class_column, class_labels, texts, whole_numbers
from ..common.npz import holds_arrays, member_headers, read_member
from ..common.poses import reading_note
from ..common.reader import Reader, Reading, Source
from .halves import OFFICIAL, splits_of_marks
from .motion import channels_of, finish, joints_of
from .named import CLASS_NAMES, CONFIDENCES, JOINT_NAMES, LABELS, NAMES, RATES, USUAL, Fields, refuse_objects

REQUIRED = ("x", "offsets")

# Sets whose ``is_train`` is the split that was published with them, by the file's name; others say what it is.
_PUBLISHED = ("nw_ucla", "penn_action", "jhmdb_2d_ddnet", "msr_action3d")
_EXCLUDES = ("exclude", "excluded")
_MOST_FOLDS = 1_000
_MARKS = ("is_train", "is_train_repo", "is_train_dedup", "is_test", "fold", "split")


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read a file of this layout.

    Joint names decide the skeleton, in any order (NW-UCLA: ``kinect20``); without them the tree does, else the number
    of joints. ``visible``, ``confidence``, ``score``, ... ``(sum_T, M, V)`` and NaN say which joints were seen.
    Fields of ``N`` values become columns, or splits:

    * ``split_NAME`` (bool, 0 and 1, 1 and 2, or words such as train and test) the split ``NAME``;
    * ``is_train`` the split that a text ``split_name`` says, ``official`` where it is known as the published one, else
      ``is_train``; ``is_test`` is its test half, where there is one. ``is_train_repo`` is ``official``;
    * ``is_train_dedup`` the split ``dedup``, which has the test half of ``is_train``; ``fold`` ``fold0``, ...

    Clips that ``exclude`` marks are in neither half of any split. Arrays that are not read are named in a note.

    Args:
        source: the archive.
        layout: the skeleton; None tells it from the file.
        min_confidence: joints of a lower confidence, or of 0, are marked as not seen.

    Raises:
        ValueError: the file is damaged, or its arrays do not fit together.
    """
    path = source.path
    headers = source.parsed(member_headers)
    for name in REQUIRED:
        if headers[name][1].hasobject:
            read_member(path, name)
    fields = Fields(
        {name: read_member(path, name) for name, (_, dtype) in sorted(headers.items()) if not dtype.hasobject}
    )
    objects = [name for name, (_, dtype) in headers.items() if dtype.hasobject]
    refuse_objects(path, objects)
    x, offsets = fields.take("x"), fields.take("offsets")
    assert x is not None
    assert offsets is not None
    x = x[:, None] if x.ndim == 3 else x
    _check(path, offsets, x)
    motion_notes, packed = _motion(fields, path, x, offsets, layout, min_confidence)
    count = len(offsets) - 1
    notes = [*motion_notes]
    data = PackedSkeletons.from_clips(**packed, **_about(fields, path, count, x, offsets, notes))
    data.steps = (
        reading_note(min_confidence) if packed["valid"] is not None and _has_confidence(fields) else ()
    )
    notes += [f"arrays of objects, which are never read: {', '.join(objects)}"] * bool(objects)
    return Reading(data, notes=notes + fields.unread())


READER = Reader("npz", (".npz",), read, holds_arrays(*REQUIRED), holds=(", ".join(REQUIRED),))


def _check(path: Path, offsets: np.ndarray, x: np.ndarray) -> None:
    if x.ndim != 4 or x.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: x has shape {x.shape} of {x.dtype}, expected numbers (frames, bodies, joints, channels)"
        )
    if offsets.ndim != 1 or len(offsets) < 2 or offsets.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: offsets has shape {offsets.shape} of {offsets.dtype}, expected whole numbers (sequences + 1,): "
            "the data set is empty"
        )
    if offsets[0] != 0 or offsets[-1] != len(x) or (np.diff(offsets.astype(np.int64)) < 0).any():
        raise ValueError(
            f"{path}: offsets goes from {offsets[0]} to {offsets[-1]}, expected to rise from 0 to the {len(x)} "
            f"frames of x"
        )


def _motion(
    fields: Fields,
    path: Path,
    x: np.ndarray,
    offsets: np.ndarray,
    layout: str | SkeletonLayout | None,
    min_confidence: float,
) -> tuple[list[str], dict[str, Any]]:
    """Return notes, and clips, layout and validity for :meth:`PackedSkeletons.from_clips`."""
    scale = fields.take("x_scale", "scale")
    names, parents = fields.take(*JOINT_NAMES), fields.take("parents", "joint_parents")
    channels = channels_of([x], f"{path}, x")
    joints = joints_of(
        x.shape[2], channels.coords, str(path), given=layout, usual=USUAL,
        names=[] if names is None else texts(names),
        parents=None if parents is None else whole_numbers(parents, f"{path}, parents"),
        own_name=path.stem,
    )  # fmt: skip
    cuts = list(pairwise(offsets.tolist()))
    factor = np.float32(1.0 if scale is None else scale.reshape(()))
    beside = _confidence(fields, path, x.shape)
    clips = [_scaled(x[start:end], factor, channels.coords) for start, end in cuts]
    motion = finish(
        clips,
        None if beside is None else [beside[start:end] for start, end in cuts],
        joints,
        channels,
        min_confidence,
    )
    notes = motion.notes
    if names is not None and parents is not None and motion.layout.name != path.stem:
        notes += _other_tree(joints.order, motion.layout, whole_numbers(parents, f"{path}, parents"))
    return notes, {"clips": motion.clips, "valid": motion.valid, "layout": motion.layout}


def _scaled(clip: np.ndarray, factor: np.float32, coords: int) -> np.ndarray:
    """Return a clip in metres; a confidence behind the coordinates keeps its values."""
    if clip.shape[-1] == coords:
        return clip * factor
    return np.concatenate([clip[..., :coords] * factor, clip[..., coords:]], axis=-1)


def _other_tree(order: tuple[int, ...], layout: SkeletonLayout, parents: list[int]) -> list[str]:
    """Return the note that the bones of a named skeleton are not those of the layout that has its joints."""
    places = {joint: place for place, joint in enumerate(order) if joint >= 0}
    mine = [places.get(parents[joint], -1) if joint >= 0 else -1 for joint in order]
    return [f"parents differ from the bones of layout {layout.name}, which are taken"] * (
        mine != list(layout.parents)
    )


def _has_confidence(fields: Fields) -> bool:
    return any(name.lower() in CONFIDENCES for name in fields.read)


def _confidence(fields: Fields, path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return which joints were seen, or how surely ``(sum_T, M, V)``: the least of all arrays that say so."""
    found: np.ndarray | None = None
    frames, bodies, joints = shape[:3]
    for name, array in fields.arrays.items():
        if name.lower() not in CONFIDENCES or array.dtype.kind not in "biuf" or array.ndim < 2:
            continue
        if array.size != frames * bodies * joints or array.shape[0] != frames:
            raise ValueError(
                f"{path}: {name} has shape {array.shape}, expected {shape[:3]}, one value a joint"
            )
        fields.read.add(name)
        values = array.reshape(frames, bodies, joints)
        values = values if values.dtype == np.bool_ else values.astype(np.float32)
        if found is not None:
            values = (
                np.where(found, values, 0)
                if found.dtype == np.bool_
                else np.minimum(found, np.where(values, values, 0))
            )
        found = values
    return found


def _about(
    fields: Fields, path: Path, count: int, x: np.ndarray, offsets: np.ndarray, notes: list[str]
) -> dict[str, Any]:
    """Return what the other arrays say of the clips, as fields of :meth:`PackedSkeletons.from_clips`."""
    about: dict[str, Any] = {}
    label, classes = fields.find(*LABELS), fields.take(*CLASS_NAMES)
    class_names = () if classes is None else texts(classes)
    about["label_names"] = class_names
    if label is not None:
        column = class_column(fields.arrays[label], count, f"{path}, {label}")
        about["labels"], about["label_names"] = class_labels(column, f"{path}, {label}", class_names)
        fields.read.add(label)
    names, rate = fields.take(*NAMES), fields.take(*RATES)
    about["names"] = None if names is None else texts(names)
    if rate is not None:
        about["fps"] = rate.reshape(-1)[0] if rate.size == 1 else rate.reshape(-1)
    frame_labels = fields.find("frame_label", "frame_labels")
    if frame_labels is not None and fields.arrays[frame_labels].shape == (len(x),):
        rows = fields.take(frame_labels.lower())
        about["frame_labels"] = None if rows is None else np.split(rows, offsets[1:-1])
    about["splits"] = _splits(fields, path, count, notes)
    flat = {
        name: array.reshape(-1)
        for name, array in fields.arrays.items()
        if array.shape in ((count,), (count, 1)) and name not in fields.read and array.dtype.kind in "biufUS"
    }
    columns = {name: values for name, values in flat.items() if not name.lower().endswith("_names")}
    code_names = {name: fields.take(f"{name.lower()}_names") for name in columns}
    about["columns"] = {
        name: np.array(texts(values)) if values.dtype.kind == "S" else values
        for name, values in columns.items()
    }
    about["column_names"] = {name: texts(array) for name, array in code_names.items() if array is not None}
    fields.read.update(columns)
    return about


def _splits(fields: Fields, path: Path, count: int, notes: list[str]) -> dict[str, Split]:
    """Return the splits; clips that are excluded are in neither half."""
    marks: dict[str, np.ndarray] = {}
    for name, array in fields.arrays.items():
        lower = name.lower()
        is_mark = lower in _MARKS or (lower.startswith("split") and not lower.endswith(("_name", "_names")))
        if is_mark and array.shape not in ((count,), (count, 1)):
            raise ValueError(
                f"{path}: {name} has shape {array.shape}, expected ({count},), one mark a sequence"
            )
        if is_mark:
            marks[lower] = array.reshape(-1)
            fields.read.add(name)
    splits = _of_training(marks, _name_of_split(fields, path), notes)
    folds = np.unique(marks.get("fold", []))
    if len(folds) > _MOST_FOLDS:
        raise ValueError(f"{path}: fold holds {len(folds)} different values, expected at most {_MOST_FOLDS}")
    if folds.dtype.kind not in "US":
        folds = np.array(whole_numbers(folds, f"{path}, fold"), dtype=object)
    for fold in folds:
        held = marks["fold"] == fold
        label = str(fold) if isinstance(fold, str) else f"fold{fold}"
        splits[label] = Split(torch.from_numpy(~held), torch.from_numpy(held))
    for name, values in marks.items():
        if name.startswith("split"):
            # The file's "split1" keeps its name; "split_xsub" is the split "xsub".
            called = name.removeprefix("split_") if name != "split" else _text(fields, "split_name") or name
            names = fields.take(f"{name}_names")
            found, said = splits_of_marks(called, values, () if names is None else texts(names))
            splits |= found
            notes += said
    excluded = fields.find(*_EXCLUDES)
    if excluded is None:
        return splits
    if fields.arrays[excluded].size != count:
        raise ValueError(f"{path}: {excluded} has shape {fields.arrays[excluded].shape}, expected ({count},)")
    kept = torch.from_numpy(~fields.arrays[excluded].reshape(-1).astype(bool))
    notes += [f"{int((~kept).sum())} clips that {excluded!r} marks are in neither half of any split"] * bool(
        splits
    )
    return {name: Split(split.train & kept, split.test & kept) for name, split in splits.items()}


def _text(fields: Fields, name: str) -> str:
    array = fields.take(name)
    return texts(array)[0] if array is not None and array.size else ""


def _name_of_split(fields: Fields, path: Path) -> str:
    """Return what the split of ``is_train`` is called."""
    if fields.find("is_train") is None:
        return OFFICIAL
    return _text(fields, "split_name") or (OFFICIAL if path.stem.lower() in _PUBLISHED else "is_train")


def _of_training(marks: dict[str, np.ndarray], name: str, notes: list[str]) -> dict[str, Split]:
    """Return the splits of ``is_train``, ``is_train_repo``, ``is_test`` and ``is_train_dedup``."""
    key = "is_train" if "is_train" in marks else "is_train_repo"
    if key not in marks:
        return {}
    found, said = splits_of_marks(name, marks[key])
    notes += said
    if name == "is_train":
        notes.append(
            "array is_train does not say whose split it is: it is called 'is_train' (use --split is_train); a text "
            "array split_name in the file names it"
        )
    test = next(iter(found.values())).test
    if "is_test" in marks:
        test = torch.from_numpy(marks["is_test"].astype(bool))
        found = {called: Split(split.train, test) for called, split in found.items()}
    if "is_train_dedup" in marks:
        found["dedup"] = Split(torch.from_numpy(marks["is_train_dedup"].astype(bool)), test)
    return found
