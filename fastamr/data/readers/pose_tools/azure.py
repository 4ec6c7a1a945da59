"""JSON of Azure Kinect's body tracking (``offline_processor``): 32 joints in millimetres, which become metres.

``{"frames": [{"frame_id": 0, "timestamp_usec": 0, "bodies": [{"body_id": 1, "joint_positions": [[x, y, z], ...]}]}],
"joint_names": [...], "bone_list": [[...]]}``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .frames import Form, named
from .people import Person, person_of
from .points import Points, array_of, points_of
from .tool import Naming, Tool, reader_of, track_of, unread_of

_KEYS = ("jointpositions", "joints", "positions")
_LEVELS = ("jointconfidencelevels", "confidencelevels", "jointconfidences", "confidences", "confidence")
_IDS = ("bodyid", "id", "trackid")
_MILLIMETRES = 1e-3
_JOINTS = 32


def _is_person(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("joint_positions"), list)


def _person(entry: Any, kind: str, where: str) -> Person:
    points = points_of(entry["joint_positions"], f"{where}, joint_positions")
    levels = named(entry, _LEVELS)
    if levels is not None and isinstance(entry[levels], list):
        points = Points(points.values, array_of(entry[levels], f"{where}, {levels}", (None,)))
    unread = unread_of(entry, (*_IDS, *_LEVELS, *_KEYS))
    return person_of(points, where, third="depth", track=track_of(entry, _IDS), unread=unread)


def _own(count: int, where: str) -> None:
    if count != _JOINTS:
        raise ValueError(
            f"{where}: {count} joints, Azure Kinect has {_JOINTS}; name another skeleton with --layout"
        )


def _naming(document: Any) -> Naming | None:
    names = document.get("joint_names") if isinstance(document, Mapping) else None
    if not isinstance(names, list) or not names:
        return None
    return Naming.of_bones([str(name) for name in names], document.get("bone_list", ()))


TOOL = Tool(
    "azure-kinect",
    "Azure Kinect's body tracking",
    ("'bodies' with 'joint_positions'",),
    Form(_is_person, lists=("frames", "data"), people=("bodies", "people", "skeletons")),
    lambda entry: ["joint_positions"] if _is_person(entry) else [],
    _person,
    usual={3: {32: "azure32"}},
    naming=_naming,
    own=_own,
    scale=_MILLIMETRES,
    marks=lambda document: isinstance(document, Mapping) and "k4abt_sdk_version" in document,
)
READER = reader_of(TOOL)
