"""OpenPose's JSON, and AlphaPose's in its form: a file a frame, or a document of frames.

``{"people": [{"person_id": [-1], "pose_keypoints_2d": [x, y, c, ...], "pose_keypoints_3d": [x, y, z, c, ...]}]}``;
AlphaPose's ``--format cmu`` has ``bodies`` with ``joints``. Key points of hands and faces are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....skeleton import SkeletonLayout
from ..common.layout_choice import Joints
from .frames import Form, named
from .people import Person, person_of
from .points import points_of
from .tool import Tool, reader_of, track_of, unread_of

_KEYS = {
    "pose_keypoints_3d": ("posekeypoints3d",),
    "pose_keypoints_2d": ("posekeypoints2d", "posekeypoints", "joints"),
}
_STRIDES = {"pose_keypoints_3d": 4, "pose_keypoints_2d": 3}
_IDS = ("personid", "trackid", "idx", "id")
_BODIES = ("people", "bodies", "persons")

MPI15 = (
    *(
        "head",
        "neck",
        "right_shoulder",
        "right_elbow",
        "right_wrist",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    ),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "chest"),
)
"""The joints of OpenPose's MPI model."""
MPI15_PARENTS = (1, 14, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1)


def _is_person(entry: Any) -> bool:
    if not isinstance(entry, Mapping):
        return False
    # Lists of points under such a common name are of any tool.
    joints = entry.get("joints")
    return (
        isinstance(joints, list) and not any(isinstance(value, (list, Mapping)) for value in joints[:1])
    ) or any(
        isinstance(entry.get(key), list)
        for key in ("pose_keypoints_2d", "pose_keypoints_3d", "pose_keypoints")
    )


def _kinds(entry: Any) -> list[str]:
    return [kind for kind, keys in _KEYS.items() if (key := named(entry, keys)) is not None and entry[key]]


def _person(entry: Any, kind: str, where: str) -> Person:
    key = str(named(entry, _KEYS[kind]))
    points = points_of(entry[key], f"{where}, {key}", stride=_STRIDES[kind])
    unread = unread_of(entry, (*_IDS, *_KEYS[kind]))
    return person_of(points, where, third="score", track=track_of(entry, _IDS), unread=unread)


def _own(count: int, where: str) -> Joints | None:
    if count != len(MPI15):
        return None
    layout = SkeletonLayout.from_joints("openpose15", MPI15, MPI15_PARENTS)
    note = "15 joints without names are taken as those of OpenPose's MPI model; --layout says otherwise"
    return Joints(layout, tuple(range(count)), (note,))


TOOL = Tool(
    "openpose",
    "OpenPose, a document or a folder with a file a frame",
    ("'people' with 'pose_keypoints_2d'",),
    Form(_is_person, lists=("frames", "data", "results", "predictions"), people=_BODIES),
    _kinds,
    _person,
    usual={2: {25: "openpose25", 18: "openpose18", 17: "coco17"}, 3: {25: "openpose25", 18: "openpose18"}},
    own=_own,
    marks=lambda document: isinstance(document, Mapping) and isinstance(document.get("people"), list),
    about={"pose_keypoints_3d": "pose_keypoints_3d is read; its unit is that of the cameras' calibration"},
)
READER = reader_of(TOOL)
