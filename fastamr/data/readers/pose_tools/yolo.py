"""Results of YOLO-pose (ultralytics) in JSON: ``results[0].to_json()`` of a frame, of each frame, or a frame a line.

A frame is a list of ``{"name": "person", "class": 0, "confidence": 0.9, "box": {...}, "track_id": 1, "keypoints": {"x":
[...], "y": [...], "visible": [...]}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..common.layout_choice import WAY_ON
from .frames import Form, named
from .people import Person, person_of
from .points import are_points, points_of
from .tool import Tool, reader_of, track_of, unread_of

_KEYS = ("keypoints", "kpts")
_USUAL = 17
_IDS = ("trackid", "trackerid", "id", "personid")


def _is_person(entry: Any) -> bool:
    key = named(entry, _KEYS)
    points = entry[key] if key is not None else None
    return isinstance(points, Mapping) and {"x", "y"} <= points.keys() and are_points(points)


def _person(entry: Any, kind: str, where: str) -> Person:
    key = str(named(entry, _KEYS))
    points = points_of(entry[key], f"{where}, {key}")
    unread = unread_of(entry, (*_IDS, *_KEYS, "name"))
    what = entry.get("name")
    what = what.lower() if isinstance(what, str) else ""
    return person_of(points, where, track=track_of(entry, _IDS), unread=unread, what=what)


def refuse_other_models(count: int, where: str) -> None:
    """Refuse to tell a skeleton by its number of key points: models of one's own have any, those of dogs 24.

    Raises:
        ValueError: there are not 17.
    """
    if count != _USUAL:
        raise ValueError(
            f"{where}: {count} key points, but YOLO-pose models of people have {_USUAL}, and others (of dogs, hands, "
            f"one's own) do not say what theirs are; name them with --layout NAME, {WAY_ON}"
        )


TOOL = Tool(
    "yolo",
    "YOLO-pose results, a document or a folder with a file a frame",
    ("a list of 'keypoints' with 'x' and 'y'",),
    Form(
        _is_person,
        lists=("images", "frames", "results", "predictions", "data"),
        people=("results", "detections", "predictions", "people", "persons", "objects", "instances"),
    ),
    lambda entry: ["keypoints"] if _is_person(entry) else [],
    _person,
    usual={2: {_USUAL: "coco17"}},
    own=refuse_other_models,
)
READER = reader_of(TOOL)
