"""The annotation files of PYSKL and MMAction2: one pickle with the clips and the splits of a data set.

``{"split": {name: [frame_dir]}, "annotations": [{"frame_dir", "label", "total_frames", "keypoint" (M, T, V, C),
"keypoint_score" (M, T, V), "img_shape"}]}``. It is read by
:mod:`..common.unpickle`, which runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons, Split
from ..common.layout_choice import choose_layout
from ..common.ntu_protocols import ClipName
from ..common.poses import reading_note, seen_from
from ..common.reader import Reader, Reading, Source
from ..common.unpickle import unpickle

_HALF = re.compile(r"(.*?)_?(train|val|test)_?(\d*)")


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read a file of this kind.

    Coordinates stay as they are: metres for 3-D data, pixels with y down for 2-D data, whose image size becomes the
    columns ``image_height`` and ``image_width``; clips of NTU RGB+D also get ``setup``, ``view``, ``subject`` and
    ``rep``. ``X_train`` and ``X_test`` (or ``X_val``) become the split ``X``,
    ``train`` and ``test`` the split ``official``, ``train1`` and ``test1`` the split ``official1``.

    Args:
        source: the pickle.
        layout: the skeleton; None tells it from the number of joints and channels.
        min_confidence: joints with a ``keypoint_score`` below it, or of 0, are marked as not seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than plain arrays, or an annotation is not sound (which, and why).
    """
    path, content = source.path, source.parsed(unpickle)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise ValueError(f"{path}: no dictionary with a list 'annotations'; this is no file of PYSKL")
    annotations = content["annotations"]
    if not annotations:
        raise ValueError(f"{path}: 'annotations' is empty")
    clips: list[np.ndarray] = []
    valid: list[np.ndarray] = []
    for place, entry in enumerate(annotations):
        coords, seen = _clip(entry, f"{path}: annotations[{place}]", min_confidence)
        if place and coords.shape[2:] != clips[0].shape[2:]:
            raise ValueError(
                f"{path}: annotations[{place}]: joints and channels are {coords.shape[2:]}, those before it have "
                f"{clips[0].shape[2:]}"
            )
        clips.append(coords)
        valid.append(seen)
    names = [str(entry["frame_dir"]) for entry in annotations]
    scored = any("keypoint_score" in entry for entry in annotations)
    splits, strangers = _splits(content.get("split", {}), names, path)
    data = PackedSkeletons.from_clips(
        clips,
        layout=choose_layout(layout, clips[0].shape[2], clips[0].shape[3], str(path)),
        labels=[_label(entry, f"{path}: annotations[{place}]") for place, entry in enumerate(annotations)],
        names=names,
        columns=_columns(annotations),
        splits=splits,
        valid=valid if scored else None,
    )
    data.dropped |= strangers
    if scored:
        data.steps = reading_note(min_confidence)
    return Reading(data)


READER = Reader("pyskl", (".pkl", ".pickle"), read, title="PYSKL", holds=("'annotations'",))


def _clip(entry: Any, where: str, min_confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(T, M, V, C)`` float32, and which joints were seen ``(T, M, V)``."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: a {type(entry).__name__}, expected a dictionary")
    for name in ("frame_dir", "keypoint"):
        if name not in entry:
            raise ValueError(
                f"{where}: {name!r} is missing"
                + _KINETICS_HINT * (name == "keypoint" and "raw_file" in entry)
            )
    if not isinstance(entry["frame_dir"], (str, int)):
        raise ValueError(f"{where}: 'frame_dir' is a {type(entry['frame_dir']).__name__}, expected a name")
    points = entry["keypoint"]
    if not isinstance(points, np.ndarray) or points.dtype.kind not in "fiu":
        raise ValueError(f"{where}: 'keypoint' is no array of numbers")
    if points.ndim != 4 or points.shape[3] not in (2, 3):
        raise ValueError(
            f"{where}: 'keypoint' has shape {points.shape}, expected (bodies, frames, joints, 2 or 3)"
        )
    frames = entry.get("total_frames", points.shape[1])
    if not isinstance(frames, (int, np.integer)) or frames != points.shape[1]:
        told = frames if isinstance(frames, (int, np.integer)) else f"a {type(frames).__name__}"
        raise ValueError(f"{where}: 'total_frames' is {told}, but 'keypoint' has {points.shape[1]} frames")
    coords = points.astype(np.float32).transpose(1, 0, 2, 3)
    score = entry.get("keypoint_score")
    if score is None:
        return coords, np.ones(coords.shape[:3], dtype=bool)
    if not isinstance(score, np.ndarray) or score.dtype.kind not in "fiu" or score.shape != points.shape[:3]:
        raise ValueError(f"{where}: 'keypoint_score' is no array of numbers of shape {points.shape[:3]}")
    return coords, seen_from(score, min_confidence).transpose(1, 0, 2)


_KINETICS_HINT = ", which this file keeps in kpfiles of their own (Kinetics-400); they are not read"


def _label(entry: Mapping[str, Any], where: str) -> int:
    label = entry.get("label", -1)
    if not isinstance(label, (int, np.integer)) or label < -1:
        raise ValueError(f"{where}: 'label' is no class index")
    return int(label)


def _columns(annotations: list[dict[str, Any]]) -> dict[str, Sequence[float]]:
    """Return what every annotation tells: the image's height and width, and what a name of NTU RGB+D says."""
    columns: dict[str, Sequence[float]] = {}
    shapes = [entry.get("img_shape") for entry in annotations]
    sizes = [shape[:2] for shape in shapes if isinstance(shape, (tuple, list)) and len(shape) >= 2]
    numeric = all(isinstance(size, (int, np.integer)) for pair in sizes for size in pair)
    if len(sizes) == len(shapes) and numeric:
        for axis, name in enumerate(("image_height", "image_width")):
            columns[name] = [int(pair[axis]) for pair in sizes]
    codes = [ClipName.parse(str(entry["frame_dir"])) for entry in annotations]
    if all(codes):
        rows = [code.columns() for code in codes if code is not None]
        columns |= {name: [row[name] for row in rows] for name in rows[0]}
    return columns


def _splits(given: Any, names: list[str], path: Path) -> tuple[dict[str, Split], dict[str, str]]:
    """Return the splits, and the clips that a split names but no annotation describes."""
    lists = list(given.values()) if isinstance(given, dict) else [None]
    if not all(
        isinstance(members, (list, tuple)) and all(isinstance(name, (str, int)) for name in members)
        for members in lists
    ):
        raise ValueError(f"{path}: 'split' is no dictionary of lists of clip names")
    places = {name: place for place, name in enumerate(names)}
    halves: dict[str, dict[str, torch.Tensor]] = {}
    strangers: dict[str, str] = {}
    for key, members in given.items():
        mask = torch.zeros(len(names), dtype=torch.bool)
        found = [places.get(str(member), -1) for member in members]
        mask[[place for place in found if place >= 0]] = True
        strangers |= {
            str(member): f"named in split {key}, but not among the annotations"
            for member, place in zip(members, found, strict=True)
            if place < 0
        }
        match = _HALF.fullmatch(str(key))
        base, half = (f"{match[1] or 'official'}{match[3]}", match[2]) if match else (str(key), "train")
        halves.setdefault(base, {})[half] = mask
    splits = {}
    none = torch.zeros(len(names), dtype=torch.bool)
    for base, parts in halves.items():
        test = parts.get("test", parts.get("val", none))
        splits[base] = Split(parts.get("train", none), test)
        if "test" in parts and "val" in parts:
            splits[f"{base}_val"] = Split(parts.get("train", none), parts["val"])
    return splits, strangers
