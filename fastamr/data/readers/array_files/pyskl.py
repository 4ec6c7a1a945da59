"""The annotation files of PYSKL and MMAction2: one pickle with the clips and the splits of a data set.

``{"split": {name: [frame_dir]}, "annotations": [{"frame_dir", "label", "total_frames", "keypoint" (M, T, V, C),
"keypoint_score" (M, T, V), "img_shape"}]}``, the bare list of annotations of MMAction2 0.x, or a dictionary of such
lists by half. It is read by :mod:`..common.unpickle`, which runs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons, Split
from ..common.arrays import class_column, class_labels
from ..common.ntu_protocols import ACTIONS, ClipName
from ..common.poses import reading_note
from ..common.reader import Damage, Reader, Reading, Source
from ..common.unpickle import unpickle
from .axes import MOST_BODIES
from .halves import half_of, join_halves, splits_of_marks
from .motion import channels_of, finish, joints_of

_USUAL = {3: {25: "ntu25"}, 2: {17: "coco17", 18: "openpose18"}}
_NAMES = ("frame_dir", "filename", "video", "video_id", "name", "id")
_READ = {"frame_dir", "label", "total_frames", "keypoint", "keypoint_score", "img_shape", "split", "fps"}
_KINETICS_HINT = ", which this file keeps in kpfiles of their own (Kinetics-400); they are not read"
_NTU_FPS = 30.0


@dataclass
class _Clip:
    """One sound annotation: points ``(T, M, V, C)`` as given, scores ``(T, M, V)`` or None, its name and label."""

    name: str
    points: np.ndarray
    score: np.ndarray | None
    label: int | str
    place: int


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read a file of this kind.

    Coordinates stay as they are: metres for 3-D data, pixels with y down for 2-D data, whose image size becomes the
    columns ``image_height`` and ``image_width``; clips of NTU RGB+D also get ``setup``, ``view``, ``subject``, ``rep``,
    their class names and 30 frames a second. ``X_train`` and ``X_test`` (or ``X_val``) become the split ``X``,
    ``Train`` and ``Test``, ``trainset`` and ``valset`` the split ``official``, ``train1`` and ``test1`` the split
    ``official1``.

    A joint with a NaN is not seen; an annotation that is not sound is left out and named. Labels of text become
    classes. A third channel that is a score becomes the confidence.

    Args:
        source: the pickle.
        layout: the skeleton; None tells it from the number of joints and channels.
        min_confidence: joints with a ``keypoint_score`` below it, or of 0, are marked as not seen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than plain arrays, has no sound annotation (the first, and why),
            has two clips of one name, or a split names no clip of the file.
    """
    path = source.path
    annotations, lists = _parts(source.parsed(unpickle), path)
    clips, damaged = _sound(annotations, path)
    channels = channels_of([clip.points for clip in clips], str(path))
    joints = joints_of(
        clips[0].points.shape[2], channels.coords, str(path), given=layout, usual=_USUAL, own_name=path.stem
    )
    scored = any(clip.score is not None for clip in clips)
    scores = [np.ones(clip.points.shape[:3], bool) if clip.score is None else clip.score for clip in clips]
    motion = finish(
        [clip.points for clip in clips], scores if scored else None, joints, channels, min_confidence
    )
    names = [clip.name for clip in clips]
    lost = {damage.name for damage in damaged}
    masks, strangers, notes = _members(lists, names, lost, path)
    splits, said = join_halves(masks)
    entries = [annotations[clip.place] for clip in clips]
    splits, more = (splits, []) if splits else _marked(entries)
    labels, classes = class_labels(_column(clips), f"{path}, label", ())
    fields = _fields(entries, names, labels)
    data = PackedSkeletons.from_clips(
        motion.clips,
        layout=motion.layout,
        labels=labels,
        label_names=classes or fields.pop("label_names", ()),
        names=names,
        splits=splits,
        valid=motion.valid,
        **{key: value for key, value in fields.items() if key != "label_names"},
    )
    data.dropped |= strangers | {damage.name: damage.reason for damage in damaged}
    if motion.scored:
        data.steps = reading_note(min_confidence)
    notes = [*motion.notes, *notes, *said, *more, *_unread(entries)]
    notes += [f"left out: {damage.where}: {damage.reason}" for damage in damaged]
    return Reading(data, notes=notes, damaged=[Damage(damage.where, damage.reason) for damage in damaged])


READER = Reader("pyskl", (".pkl", ".pickle"), read, title="PYSKL", holds=("'annotations'",))


@dataclass
class _Lost:
    """An annotation that is left out: its name, where it stands, and why."""

    name: str
    where: str
    reason: str


def _parts(content: Any, path: Path) -> tuple[list[Any], dict[str, list[Any]]]:
    """Return the annotations, and the names of clips by the key of their list."""
    lists: dict[str, list[Any]] = {}
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), (list, tuple)):
        annotations = list(content["annotations"])
        given = content.get("split") or {}
        values = list(given.values()) if isinstance(given, dict) else [None]
        values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
        if not all(
            isinstance(members, (list, tuple)) and all(isinstance(name, (str, int)) for name in members)
            for members in values
        ):
            raise ValueError(f"{path}: 'split' is no dictionary of lists of clip names")
        lists = {str(key): list(members or ()) for key, members in zip(given, values, strict=True)}
    elif isinstance(content, (list, tuple)) and any(_is_annotation(entry) for entry in content):
        annotations = list(content)
    elif _is_annotation(content):
        annotations = [content]
    elif (
        isinstance(content, dict)
        and content
        and all(
            isinstance(part, list) and part and _is_annotation(part[0]) and half_of(str(key))
            for key, part in content.items()
        )
    ):
        annotations = [entry for part in content.values() for entry in part]
        lists = {str(key): [_name(entry) for entry in part] for key, part in content.items()}
    else:
        pair = isinstance(content, (tuple, list)) and len(content) == 2
        hint = "; names and labels of ST-GCN belong to a file such as train_data_joint.npy, which is not beside it"
        raise ValueError(
            f"{path}: no dictionary with a list 'annotations', and no list of them; this is no file of PYSKL or "
            f"MMAction2"
            + (
                hint
                if pair
                else "; save the arrays of the clips with np.savez('clips.npz', **arrays) instead"
            )
        )
    if not annotations:
        raise ValueError(f"{path}: 'annotations' is empty")
    return annotations, lists


def _is_annotation(entry: Any) -> bool:
    return isinstance(entry, Mapping) and ("keypoint" in entry or ("frame_dir" in entry and "label" in entry))


def _name(entry: Any) -> str | None:
    """Return the name of an annotation, or None where it has none."""
    given = [entry[key] for key in _NAMES if key in entry] if isinstance(entry, Mapping) else []
    return str(given[0]) if given and isinstance(given[0], (str, int)) else None


def _sound(annotations: list[Any], path: Path) -> tuple[list[_Clip], list[_Lost]]:
    """Return the annotations that can be used, and those that cannot.

    Raises:
        ValueError: none can be used (the first, and why), or two have one name.
    """
    clips: list[_Clip] = []
    lost: list[_Lost] = []
    places: dict[str, int] = {}
    for place, entry in enumerate(annotations):
        name = _name(entry)
        if name is not None and places.setdefault(name, place) != place:
            raise ValueError(
                f"{path}: annotations[{places[name]}] and annotations[{place}] both have frame_dir {name!r}, so that "
                "a split cannot tell them apart; give each clip a name of its own"
            )
        try:
            clips.append(_clip(entry, place))
        except ValueError as error:
            called = f" ({name!r})" if name is not None else ""
            lost.append(
                _Lost(name or f"annotations[{place}]", f"{path}: annotations[{place}]{called}", str(error))
            )
    _drop_strange(
        clips, lost, path, lambda clip: clip.points.shape[2:],
        lambda clip: f"joints and channels are {clip.points.shape[2:]}",
    )  # fmt: skip
    _drop_strange(
        clips, lost, path, lambda clip: None if clip.label == -1 else type(clip.label).__name__,
        lambda clip: f"'label' is {clip.label!r}",
    )  # fmt: skip
    if not clips:
        raise ValueError(f"{lost[0].where}: {lost[0].reason}")
    return clips, lost


def _drop_strange(
    clips: list[_Clip],
    lost: list[_Lost],
    path: Path,
    kind: Callable[[_Clip], Any],
    told: Callable[[_Clip], str],
) -> None:
    """Leave out the clips that are of another kind than most, as ``told``; a clip of kind None may stay."""
    kinds = Counter(found for clip in clips if (found := kind(clip)) is not None)
    if len(kinds) < 2:
        return
    usual = kinds.most_common(1)[0][0]
    for clip in clips:
        if kind(clip) not in (None, usual):
            where = f"{path}: annotations[{clip.place}] ({clip.name!r})"
            lost.append(_Lost(clip.name, where, f"{told(clip)}, most others have {usual}"))
    clips[:] = [clip for clip in clips if kind(clip) in (None, usual)]


def _clip(entry: Any, place: int) -> _Clip:
    """Return an annotation.

    Raises:
        ValueError: it is not sound, without where it stands.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"a {type(entry).__name__}, expected a dictionary")
    name = _name(entry)
    if "frame_dir" in entry and not isinstance(entry["frame_dir"], (str, int)):
        raise ValueError(f"'frame_dir' is a {type(entry['frame_dir']).__name__}, expected a name")
    if name is None:
        raise ValueError("'frame_dir' is missing")
    if "keypoint" not in entry:
        raise ValueError("'keypoint' is missing" + _KINETICS_HINT * ("raw_file" in entry))
    points = _numbers(entry["keypoint"], "keypoint")
    points = points[None] if points.ndim == 3 else points
    if points.ndim != 4 or points.shape[3] not in (2, 3, 4):
        raise ValueError(
            f"'keypoint' has shape {points.shape}, expected (bodies, frames, joints, 2 or 3), or without bodies"
        )
    if "total_frames" not in entry and points.shape[0] > max(MOST_BODIES, points.shape[1]):
        raise ValueError(
            f"'keypoint' has shape {points.shape}, more bodies than frames; give it as (bodies, frames, joints, "
            f"coordinates), or 'total_frames' beside it"
        )
    frames = entry.get("total_frames", points.shape[1])
    if not isinstance(frames, (int, np.integer)) or frames != points.shape[1]:
        told = frames if isinstance(frames, (int, np.integer)) else f"a {type(frames).__name__}"
        raise ValueError(f"'total_frames' is {told}, but 'keypoint' has {points.shape[1]} frames")
    if np.isinf(points).any():
        body, frame, joint, _ = (int(axis[0]) for axis in np.nonzero(np.isinf(points)))
        raise ValueError(f"body {body}, frame {frame}, joint {joint}: coordinates are not finite")
    score = entry.get("keypoint_score")
    if score is not None:
        score = _numbers(score, "keypoint_score")
        if score.shape not in (points.shape[:3], points.shape[1:3], (*points.shape[:3], 1)) or (
            score.size != points[..., 0].size
        ):
            raise ValueError(f"'keypoint_score' is no array of numbers of shape {points.shape[:3]}")
        score = score.reshape(points.shape[:3]).swapaxes(0, 1)
    return _Clip(name, points.swapaxes(0, 1), score, _label(entry), place)


def _numbers(given: Any, name: str) -> np.ndarray:
    """Return an array, or nested lists of numbers, as an array."""
    try:
        array = np.asarray(given)
    except ValueError:
        raise ValueError(f"{name!r} holds lists of unequal length") from None
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name!r} is no array of numbers")
    return array


def _label(entry: Mapping[str, Any]) -> int | str:
    """Return a class index or the name of a class; -1 = unknown."""
    label = entry.get("label", -1)
    if isinstance(label, np.ndarray) and label.size == 1:
        label = label.reshape(-1)[0]
    if label is None or (isinstance(label, str) and not label.strip()):
        return -1
    if isinstance(label, (float, np.floating)) and np.isnan(label):
        return -1
    if isinstance(label, str):
        return str(label).strip()
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        label = int(label)
    if not isinstance(label, (int, np.integer)) or not -1 <= label < 1 << 31:
        shown = (
            f"{label!r}"[:40] if isinstance(label, (int, float, np.number)) else f"a {type(label).__name__}"
        )
        raise ValueError(
            f"'label' is {shown}, no class index; number the classes from 0, or give their names"
        )
    return int(label)


def _column(clips: list[_Clip]) -> np.ndarray:
    labels = [clip.label for clip in clips]
    if any(isinstance(label, str) for label in labels):
        return np.array(["" if label == -1 else str(label) for label in labels])
    return class_column(np.array(labels, dtype=np.int64), len(clips), "label")


def _members(
    lists: Mapping[str, list[Any]], names: list[str], lost: set[str], path: Path
) -> tuple[dict[str, torch.Tensor], dict[str, str], list[str]]:
    """Return which clips each list names, the names that are no clip, and notes.

    Raises:
        ValueError: a list names no clip of the file at all (a name of each).
    """
    places = {name: place for place, name in enumerate(names)}
    masks: dict[str, torch.Tensor] = {}
    strangers: dict[str, str] = {}
    notes = []
    for key, members in lists.items():
        found = [places[str(member)] for member in members if str(member) in places]
        unknown = [str(member) for member in members if str(member) not in places and str(member) not in lost]
        if members and not found and unknown:
            raise ValueError(
                f"{path}: split {key!r} matches no clip: it names {unknown[0]!r}, the annotations {names[0]!r}; spell "
                f"them alike"
            )
        masks[key] = torch.zeros(len(names), dtype=torch.bool)
        masks[key][found] = True
        strangers |= dict.fromkeys(unknown, f"named in split {key}, but not among the annotations")
        if unknown:
            notes.append(
                f"split {key!r}: {len(unknown)} of {len(members)} names are no clip, the first is {unknown[0]!r}"
            )
    return masks, strangers, notes


def _marked(entries: list[Mapping[str, Any]]) -> tuple[dict[str, Split], list[str]]:
    """Return the split that the annotations' own ``split`` tells, where all have one."""
    words = [entry.get("split") for entry in entries]
    if not all(isinstance(word, str) for word in words):
        return {}, []
    return splits_of_marks("official", np.array(words))


def _fields(entries: list[Mapping[str, Any]], names: list[str], labels: np.ndarray) -> dict[str, Any]:
    """Return what every annotation tells: image size and rate, and what a name of NTU RGB+D says."""
    fields: dict[str, Any] = {}
    columns: dict[str, list[float]] = {}
    shapes = [entry.get("img_shape") for entry in entries]
    sizes = [
        shape[:2] for shape in shapes if isinstance(shape, (tuple, list, np.ndarray)) and np.size(shape) >= 2
    ]
    numeric = all(isinstance(size, (int, np.integer)) for pair in sizes for size in pair)
    if len(sizes) == len(shapes) and numeric:
        for axis, name in enumerate(("image_height", "image_width")):
            columns[name] = [int(pair[axis]) for pair in sizes]
    rates = [entry.get("fps") for entry in entries]
    if any(isinstance(rate, (int, float, np.number)) for rate in rates):
        fields["fps"] = [
            float(rate) if isinstance(rate, (int, float, np.number)) else float("nan") for rate in rates
        ]
    codes = [ClipName.parse(name) for name in names]
    known = [code for code in codes if code is not None]
    if len(known) == len(names):
        rows = [code.columns() for code in known]
        columns |= {name: [row[name] for row in rows] for name in rows[0]}
        fields.setdefault("fps", _NTU_FPS)
        if all(code.action - 1 == label for code, label in zip(known, labels.tolist(), strict=True)):
            fields["label_names"] = ACTIONS[:60] if labels.max() < 60 else ACTIONS
    fields["columns"] = columns
    return fields


def _unread(entries: list[Mapping[str, Any]]) -> list[str]:
    keys = sorted({str(key) for entry in entries for key in entry} - _READ - set(_NAMES))
    return [f"keys of annotations that are not read: {', '.join(keys)}"] * bool(keys)
