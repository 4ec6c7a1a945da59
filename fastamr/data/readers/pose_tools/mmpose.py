"""MMPose's predictions: ``instance_info`` of its demos, ``predictions/*.json`` of its inferencer, results of version 0.

A frame is a list of instances ``{"keypoints": [[x, y], ...], "keypoint_scores": [...], "track_id": 1}``; those of three
numbers are 3-D lifts. ``meta_info`` names the joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .frames import Form, named
from .people import Person, person_of
from .points import Points, array_of, points_of
from .tool import Naming, Tool, reader_of, track_of, unread_of

_KEYS = {"keypoints_3d": ("keypoints3d",), "keypoints": ("keypoints",)}
_SCORES = ("keypointscores", "keypointscore", "scores", "confidences", "keypointsvisible")
_IDS = ("trackid", "personid", "instanceid", "id")


def _is_person(entry: Any) -> bool:
    """Tell an instance: lists of points, which are flat in COCO's results."""
    if not isinstance(entry, Mapping) or "image_id" in entry:
        return False
    key = named(entry, (*_KEYS["keypoints_3d"], "keypoints"))
    points = entry[key] if key is not None else None
    if not isinstance(points, list) or not points:
        return False
    return isinstance(points[0], list) or named(entry, ("keypointscores",)) is not None


def _kinds(entry: Any) -> list[str]:
    return [kind for kind, keys in _KEYS.items() if (key := named(entry, keys)) is not None and entry[key]]


def _person(entry: Any, kind: str, where: str) -> Person:
    key = str(named(entry, _KEYS[kind]))
    points = points_of(entry[key], f"{where}, {key}", stride=2)
    beside = named(entry, _SCORES)
    if beside is not None and kind == "keypoints":
        scores = entry[beside]
        while isinstance(scores, list) and len(scores) == 1 and isinstance(scores[0], list):
            scores = scores[0]
        points = Points(points.values, array_of(scores, f"{where}, {beside}", (None,)))
    unread = unread_of(entry, (*_IDS, *_SCORES, *_KEYS[kind]))
    return person_of(points, where, track=track_of(entry, _IDS), unread=unread)


def _naming(document: Any) -> Naming | None:
    """Return the joints' names of ``meta_info``."""
    key = named(document, ("metainfo", "datasetmeta"))
    about = document[key] if key is not None else {}
    by_id, by_name = (named(about, (name,)) for name in ("keypointid2name", "keypointname2id"))
    if by_id is not None and isinstance(about[by_id], Mapping):
        pairs = [(place, name) for place, name in about[by_id].items()]
    elif by_name is not None and isinstance(about[by_name], Mapping):
        pairs = [(place, name) for name, place in about[by_name].items()]
    else:
        return None
    if not all(str(place).isdigit() for place, _ in pairs):
        return None
    names = [str(name) for _, name in sorted(pairs, key=lambda pair: int(pair[0]))]
    links = named(about, ("skeletonlinks",))
    return Naming.of_bones(names, about[links] if links is not None else ())


TOOL = Tool(
    "mmpose",
    "MMPose's predictions, a document or a folder with a file a frame",
    ("'instance_info'", "instances with 'keypoint_scores'"),
    Form(
        _is_person,
        lists=("instanceinfo", "predictions", "frames", "results", "data"),
        people=("instances", "people", "persons", "predictions", "poseresults"),
    ),
    _kinds,
    _person,
    usual={2: {17: "coco17"}, 3: {17: "h36m17"}},
    naming=_naming,
    marks=lambda document: isinstance(document, Mapping) and "instance_info" in document,
    about={"keypoints_3d": "keypoints_3d is read, not the points in the image"},
)
READER = reader_of(TOOL)
