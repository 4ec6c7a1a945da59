"""One motion, or a padded batch, among named arrays: what ``.npz`` and ``.mat`` files hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..common.arrays import class_column, class_labels, texts, whole_numbers
from ..common.poses import reading_note
from ..common.reader import Reading
from .halves import splits_of_marks
from .motion import read_motion

POINTS = (
    *(
        "joints",
        "joint_positions",
        "joints3d",
        "joints_3d",
        "joints2d",
        "joints_2d",
        "jtr",
        "j",
        "keypoints",
        "keypoint",
    ),
    *(
        "keypoints_3d",
        "keypoints3d",
        "keypoints_2d",
        "keypoints2d",
        "kps",
        "kpts",
        "landmarks",
        "pose_landmarks",
    ),
    *(
        "world_landmarks",
        "skeleton",
        "skeletons",
        "skel",
        "d_skel",
        "positions",
        "positions_3d",
        "positions_2d",
    ),
    *(
        "pos_img",
        "pos_world",
        "pose",
        "poses",
        "poses_3d",
        "poses_2d",
        "pose3d",
        "pose2d",
        "coords",
        "coordinates",
    ),
    *("points", "xyz", "xy", "motion", "motions", "x", "data", "reconstruction", "arr_0"),
)
"""Names of an array of coordinates, in lower case, the surest first."""

CONFIDENCES = (
    *("visible", "visibility", "valid", "valid_mask", "confidence", "confidences", "conf", "score", "scores"),
    *(
        "keypoint_score",
        "keypoint_scores",
        "keypoints_score",
        "keypoints_scores",
        "joint_score",
        "joint_scores",
    ),
    *("likelihood", "presence"),
)
RATES = ("fps", "frame_rate", "framerate", "mocap_framerate", "mocap_frame_rate", "rate")
LABELS = ("label", "labels", "y", "action", "actions", "class", "classes", "action_label")
CLASS_NAMES = ("label_names", "class_names", "classes_names", "action_names")
JOINT_NAMES = ("joint_names", "joints_names", "keypoint_names", "landmark_names", "marker_names")
NAMES = ("name", "names", "clip_name", "clip_names", "frame_dir")
SPLITS = ("split", "is_train")
USUAL: Mapping[int, Mapping[int, str]] = {}
"""Arrays without a format mean nothing by a number of joints."""


class Fields:
    """Named arrays, found in any case, that know which of them were read."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = dict(arrays)
        # Of two names that differ in case alone the one in lower case is meant.
        self._by_name = {name.lower(): name for name in sorted(arrays)}
        self.read: set[str] = set()

    def find(self, *names: str) -> str | None:
        """Return the first of some names that there is, as the file spells it."""
        return next((self._by_name[name] for name in names if name in self._by_name), None)

    def take(self, *names: str) -> np.ndarray | None:
        """Return the first array of some names, which counts as read, or None."""
        name = self.find(*names)
        if name is None:
            return None
        self.read.add(name)
        return self.arrays[name]

    def unread(self) -> list[str]:
        """Return the note that names the arrays which were not read."""
        rest = [f"{name} {array.shape}" for name, array in self.arrays.items() if name not in self.read]
        return [f"arrays that are not read: {', '.join(rest)}"] * bool(rest)


def refuse_objects(path: Path, objects: list[str]) -> None:
    """Raise where an array of objects, which is never read, has a name that would have been.

    Raises:
        ValueError: which array, and how to save it.
    """
    known = {*LABELS, *CLASS_NAMES, *JOINT_NAMES, *NAMES, *SPLITS, *CONFIDENCES, *RATES}
    for name in objects:
        if name.lower() in known:
            raise ValueError(
                f"{path}, array {name!r}: holds objects, which could run code and are not read; save it as plain "
                "numbers, or as text with np.array(values, dtype=str)"
            )


def points_name(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return the name of the array of coordinates: the surest name with 3 to 5 axes, else the only such array."""
    many = {name: shape for name, shape in shapes.items() if 3 <= len(shape) <= 5}
    by_name = {name.lower(): name for name in many}
    found = next((by_name[name] for name in POINTS if name in by_name), None)
    return found or (next(iter(many)) if len(many) == 1 else None)


def read_named(
    arrays: Mapping[str, np.ndarray],
    points: str,
    path: Path,
    *,
    layout: str | SkeletonLayout | None,
    min_confidence: float,
    joint_names: list[str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Reading:
    """Read the clips of one array of coordinates, with what the others say of them.

    Args:
        arrays: all arrays that could be read.
        points: the name of the coordinates.
        path: the file, for errors and for the clip's name.
        layout: the skeleton that was asked for.
        min_confidence: joints of a lower confidence are marked as not seen.
        joint_names: the joints, where the format says them.
        more: fields of :meth:`PackedSkeletons.from_clips` that the format says.

    Raises:
        ValueError: the arrays do not fit together, or the skeleton cannot be told.
    """
    fields = Fields(arrays)
    array = fields.take(points.lower())
    assert array is not None
    label = fields.find(*LABELS)
    count = len(arrays[label].reshape(-1)) if label and arrays[label].ndim in (1, 2) else None
    names = fields.take(*JOINT_NAMES)
    parents = fields.take("parents", "joint_parents")
    confidence = _confidence(fields, array)
    motion = read_motion(
        array, f"{path}, {points}", layout=layout, min_confidence=min_confidence, usual=USUAL,
        names=joint_names or ([] if names is None else texts(names)),
        parents=None if parents is None else whole_numbers(parents, f"{path}, parents"),
        confidence=confidence, clips=count, own_name=path.stem,
    )  # fmt: skip
    notes = [f"coordinates are read from {points!r}", *motion.notes]
    extra = _about_clips(fields, len(motion.clips), path, notes) | dict(more or {})
    data = PackedSkeletons.from_clips(motion.clips, layout=motion.layout, valid=motion.valid, **extra)
    if motion.scored:
        data.steps = reading_note(min_confidence)
    return Reading(data, notes=notes + fields.unread())


def _confidence(fields: Fields, array: np.ndarray) -> np.ndarray | None:
    """Return the first array that has a name of a confidence and as many values as there are joints."""
    name = fields.find(*CONFIDENCES)
    joints = [array.size // size for size in array.shape if size in (2, 3, 4, 5)]
    if name is None or fields.arrays[name].size not in joints or fields.arrays[name].dtype.kind not in "biuf":
        return None
    found = fields.take(name.lower())
    return found[..., 0] if found is not None and found.ndim == array.ndim and found.shape[-1] == 1 else found


def _about_clips(fields: Fields, count: int, path: Path, notes: list[str]) -> dict[str, Any]:
    """Return the fields of :meth:`PackedSkeletons.from_clips` that describe ``count`` clips."""
    extra: dict[str, Any] = {"names": [path.stem] if count == 1 else None}
    label = fields.find(*LABELS)
    if label is not None and (
        fields.arrays[label].size == count or fields.arrays[label].shape[:1] == (count,)
    ):
        given = fields.arrays[label]
        column = class_column(
            given.reshape(count) if given.size == count else given, count, f"{path}, {label}"
        )
        classes = fields.take(*CLASS_NAMES)
        fields.read.add(label)
        extra["labels"], extra["label_names"] = class_labels(
            column, f"{path}, {label}", () if classes is None else texts(classes)
        )
    rate = fields.find(*RATES)
    if (
        rate is not None
        and fields.arrays[rate].dtype.kind in "fiu"
        and fields.arrays[rate].size in (1, count)
    ):
        given = fields.arrays[rate].reshape(-1).astype(np.float32)
        extra["fps"] = float(given[0]) if given.size == 1 else given
        fields.read.add(rate)
    name = fields.find(*NAMES)
    if name is not None and fields.arrays[name].size == count:
        extra["names"] = texts(fields.arrays[name])
        fields.read.add(name)
    mark = fields.find(*SPLITS)
    if mark is not None and count > 1 and fields.arrays[mark].size == count:
        extra["splits"], more = splits_of_marks(mark, fields.arrays[mark].reshape(-1))
        notes += more
        fields.read.add(mark)
    extra["columns"] = {
        name: array.reshape(-1)
        for name, array in fields.arrays.items()
        if name not in fields.read and array.shape in ((count,), (count, 1)) and array.dtype.kind in "biufUS"
        and count > 1
    }  # fmt: skip
    fields.read.update(extra["columns"])
    return extra
