"""Landmarks of MediaPipe (BlazePose), ML Kit and TensorFlow.js in the JSON that people write of them.

MediaPipe has no file format. Read are lists of frames of landmarks (objects with ``x, y, z, visibility``, or lists of
numbers), the results' fields ``pose_landmarks`` and ``pose_world_landmarks`` in any spelling, objects of landmarks by
name, and frames with numbers or time stamps around them. Where both kinds are told, the world's are taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...packed.dataset import PackedSkeletons
from .frames import Form, named
from .people import SHARES_NOTE, Person, person_of
from .points import are_points, array_of, points_of
from .tool import Tool, reader_of, track_of, unread_of

_KEYS = {
    "pose_world_landmarks": ("poseworldlandmarks", "worldlandmarks", "poselandmarksworld", "keypoints3d"),
    "pose_landmarks": ("poselandmarks", "normalizedlandmarks"),
    "landmarks": ("landmarks", "keypoints", "landmark", "posekeypoints", "points", "joints", "pose"),
}
_ALL = tuple(name for names in _KEYS.values() for name in names)
_IDS = ("trackid", "trackingid", "personid", "poseid", "userid", "bodyid", "id")
_PEOPLE = ("poses", "people", "persons", "bodies", "skeletons", "users", "multiposelandmarks", "detections")
_SCORES = ("visibility", "visibilities", "scores", "keypointscores", "confidences", "confidence", "jointsvis")
_AROUND = ("timestamp", "timestampms", "time", "timesec", "t", "tracked", "istracked")
_FEWEST = 5
_LANDMARKS = 33
# The hips' middle is this close to the origin in world landmarks, in metres (choice).
_ORIGIN = 0.02
# Points in pixels spread over more than this; a depth of less than this share of it has another unit (choice).
_PIXELS, _FLAT = 8.0, 0.01
_FLAT_NOTE = (
    "z is less than a hundredth of x and y: they look like pixels and it like a share of the image, so that bodies are "
    "flat; write z times the image's width"
)
_WORLD_NOTE = "world landmarks: metres, y down, the origin between the hips; where the body goes is not told"
_IMAGE_NOTE = "image landmarks: z has about the scale of x, its origin between the hips; " + SHARES_NOTE


def _is_person(entry: Any) -> bool:
    """Tell landmarks, or an object that holds those of one person."""
    if are_points(entry) or _is_flat(entry):
        return True
    if not isinstance(entry, Mapping) or "image_id" in entry:
        return False
    return any(are_points(entry[key]) or _is_flat(entry[key]) for key in _keys(entry).values()) or bool(
        _by_name(entry)
    )


def _is_flat(entry: Any) -> bool:
    """Tell the numbers of all landmarks in one list, two to five each."""
    is_long = isinstance(entry, list) and len(entry) in range(2 * _LANDMARKS, 5 * _LANDMARKS + 1, _LANDMARKS)
    return is_long and all(isinstance(value, (int, float)) for value in entry)


def _keys(entry: Any) -> dict[str, str]:
    """Return the key of each way in which an object tells landmarks."""
    found = {kind: named(entry, names) for kind, names in _KEYS.items()}
    return {kind: key for kind, key in found.items() if key is not None}


def _by_name(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the landmarks that stand in an object by name, beside the frame's number perhaps."""
    found = {key: value for key, value in entry.items() if isinstance(value, (list, Mapping))}
    is_named = len(found) >= _FEWEST and are_points(found) and not all(str(key).isdigit() for key in found)
    return found if is_named else {}


def _split(content: Mapping[str, Any]) -> list[Any] | None:
    """Part fields that list the landmarks of several people, or frames: ``{"pose_landmarks": [[...], [...]]}``."""
    keys = [key for key in _keys(content).values() if _is_list_of_people(content[key])]
    if not keys:
        empty = any(content[key] in (None, [], {}) for key in _keys(content).values())
        return [] if empty and not _is_person(content) else None
    return [
        {key: value for key, value in zip(keys, values, strict=True) if value} or None
        for values in itertools.zip_longest(*(content[key] for key in keys))
    ]


def _is_list_of_people(value: Any) -> bool:
    return isinstance(value, list) and not are_points(value) and any(map(_is_person, value))


def _kinds(entry: Any) -> list[str]:
    if not isinstance(entry, Mapping) or are_points(entry) or _by_name(entry):
        return ["landmarks"]
    return [kind for kind, key in _keys(entry).items() if are_points(entry[key]) or _is_flat(entry[key])]


def _person(entry: Any, kind: str, where: str) -> Person:
    if not isinstance(entry, Mapping) or are_points(entry):
        return person_of(points_of(entry, where, _stride(entry)), where)
    by_name = _by_name(entry)
    if by_name:
        unread = [key for key in unread_of(entry, (*_AROUND, *_IDS)) if key not in by_name]
        return person_of(points_of(by_name, where), where, track=track_of(entry, _IDS), unread=unread)
    key = _keys(entry)[kind]
    points = points_of(entry[key], f"{where}, {key}", _stride(entry[key]))
    used, beside = {key}, named(entry, _SCORES)
    if beside is not None and isinstance(entry[beside], list) and points.scores is None:
        points = replace(points, scores=array_of(entry[beside], f"{where}, {beside}", (None,)))
        used.add(beside)
    unread = [other for other in unread_of(entry, (*_AROUND, *_IDS)) if other not in used]
    return person_of(
        points,
        where,
        track=track_of(entry, _IDS),
        unread=unread,
    )


def _stride(value: Any) -> int:
    return len(value) // _LANDMARKS if _is_flat(value) else 0


def _judge(data: PackedSkeletons, kind: str) -> Sequence[str]:
    """Say in which space landmarks lie: told by the file, else by where the hips are."""
    if data.coords.shape[-1] != 3 or data.layout.hips is None:
        return ()
    if kind == "landmarks":
        shown = data.coords.flatten(1).any(1)
        hips = data.coords[shown][:, list(data.layout.hips)].mean(1)
        if float(hips.norm(dim=-1).quantile(0.9)) > _ORIGIN:
            if _is_flat_depth(data):
                return (_FLAT_NOTE,)
            is_share = bool(data.coords[..., :2].abs().max() <= 2) and data.layout.name == "mediapipe33"
            return ("taken as " + _IMAGE_NOTE,) if is_share else ()
        return ("taken as " + _WORLD_NOTE,)
    return (_WORLD_NOTE,) if kind == "pose_world_landmarks" else (_IMAGE_NOTE,)


def _is_flat_depth(data: PackedSkeletons) -> bool:
    """Tell pixels with the share that MediaPipe writes for z beside them: bodies as flat as a sheet."""
    seen = data.coords if data.valid is None else data.coords[data.valid]
    points = seen.reshape(-1, 3)
    spread = points.quantile(0.9, 0) - points.quantile(0.1, 0) if len(points) <= 1 << 24 else points.std(0)
    return bool(spread[:2].max() > _PIXELS and spread[2] < _FLAT * spread[:2].max())


TOOL = Tool(
    "mediapipe",
    "MediaPipe landmarks, a document or a folder with a file a frame",
    ("'landmarks' of 'x' and 'y'", "'pose_landmarks'"),
    Form(_is_person, lists=("frames", "data", "results", "poses"), people=_PEOPLE, lone=True, split=_split),
    _kinds,
    _person,
    usual={3: {33: "mediapipe33"}, 2: {33: "mediapipe33", 17: "coco17"}},
    judge=_judge,
)
READER = reader_of(TOOL)
