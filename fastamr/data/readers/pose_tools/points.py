"""The key points of one person in any spelling: flat lists, lists of points, objects of columns or of joints."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..common.json_text import numbers
from .frames import named

_SCORES = (
    "visibility",
    "score",
    "confidence",
    "conf",
    "visible",
    "likelihood",
    "inframelikelihood",
    "presence",
    "trackingstate",
)
_NAMES = ("name", "part", "bodypart", "joint", "jointname", "type", "jointtype", "keypoint", "label")
_PLACES = ("id", "idx", "index", "landmarkid", "landmarkindex", "keypointid", "jointid", "jointindex")
# An object around a point's coordinates: PoseNet's, Kinect's and Nuitrack's.
_INNER = ("position", "real")
_AXES = {axis: (axis, f"camera{axis}") for axis in "xyz"}
_STATES = {"nottracked": 0, "inferred": 1, "tracked": 2}
_FEWEST = 3


@dataclass(frozen=True)
class Points:
    """The key points of a person.

    Args:
        values: ``(J, K)`` float32, x, y and what else each point has; NaN = null.
        scores: ``(J,)`` float32 that stand under a name of their own, or None.
        names: the joints, or None.
        unread: what else the points tell.
        has_depth: whether the third number is called z.
    """

    values: np.ndarray
    scores: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    unread: tuple[str, ...] = ()
    has_depth: bool = False


def are_points(value: Any) -> bool:
    """Tell whether something is a person's key points: a list of points, or an object of them; flat lists are not.

    The first and the last points are looked at; :func:`points_of` reads all.
    """
    if isinstance(value, Mapping):
        if {"x", "y"} <= value.keys():
            return isinstance(value["x"], list) and isinstance(value["y"], list)
        inner = named(value, ("landmark",))
        if inner is not None:
            return are_points(value[inner])
        return len(value) >= _FEWEST and all(map(_is_point, value.values()))
    if not isinstance(value, list) or len(value) < _FEWEST:
        return False
    return _is_point(value[0]) and _is_point(value[1]) and _is_point(value[-1])


def _is_point(value: Any) -> bool:
    if isinstance(value, Mapping):
        if "x" in value and "y" in value:
            return not isinstance(value["x"], list)
        inner = named(value, _INNER)
        point = value if inner is None else value[inner]
        x, y = named(point, _AXES["x"]), named(point, _AXES["y"])
        return x is not None and y is not None and not isinstance(point[x], list)
    return (
        isinstance(value, list)
        and 2 <= len(value) <= 5
        and all(entry is None or isinstance(entry, (int, float)) for entry in value)
    )


def points_of(value: Any, where: str, stride: int = 0) -> Points:
    """Return key points.

    Args:
        value: lists of points ``[x, y, ...]``, objects ``{"x", "y", "z", "visibility", "name"}``, an object of such
            by joint, an object of columns ``{"x": [...], "y": [...], "visible": [...]}``, or a flat list.
        where: names the person in errors.
        stride: how many numbers a point has in a flat list.

    Raises:
        ValueError: something is no number, columns or points differ in length, or a flat list does not divide.
    """
    # Lists around one person: ``(1, J, 3)``.
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if isinstance(value, Mapping):
        if {"x", "y"} <= value.keys():
            return _columns(value, where)
        inner = named(value, ("landmark",))
        if inner is not None:
            return points_of(value[inner], where)
        names = tuple(str(name) for name in value)
        found = points_of(list(value.values()), where)
        return replace(found, names=names)
    if not isinstance(value, list):
        raise ValueError(f"{where}: key points are a {type(value).__name__}, expected a list")
    if value and isinstance(value[0], Mapping):
        return _objects(value, where)
    if value and isinstance(value[0], list):
        return Points(array_of(value, where, (None, None)))
    flat = array_of(value, where, (None,))
    if stride == 0 or len(flat) == 0 or len(flat) % stride:
        expected = f"{stride} for each joint" if stride else "a list for each joint"
        raise ValueError(f"{where}: {len(flat)} numbers, expected {expected}")
    return Points(flat.reshape(-1, stride))


def array_of(value: Any, where: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return nested lists as float32 like :func:`numbers`, null as NaN."""
    if isinstance(value, list) and _has_null(value):
        value = _without_null(value)
    return numbers(value, where, shape)


def _has_null(value: list[Any]) -> bool:
    return any(entry is None or (isinstance(entry, list) and None in entry) for entry in value)


def _without_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null(entry) for entry in value]
    return float("nan") if value is None else value


def _columns(value: Mapping[str, Any], where: str) -> Points:
    axes = [axis for axis in "xyz" if value.get(axis)]
    columns = [array_of(value[axis], f"{where}, {axis}", (None,)) for axis in axes]
    key = named(value, _SCORES)
    scores = None if key is None or value[key] is None else array_of(value[key], f"{where}, {key}", (None,))
    lengths = {len(column) for column in [*columns, *([] if scores is None else [scores])]}
    if len(axes) < 2 or len(lengths) != 1:
        raise ValueError(
            f"{where}: 'x', 'y' and what stands beside them differ in length, expected one number a joint"
        )
    return Points(np.stack(columns, axis=1), scores, has_depth="z" in axes)


def _objects(value: list[Any], where: str) -> Points:
    if not all(isinstance(point, Mapping) for point in value):
        raise ValueError(f"{where}: holds something that is no point, expected objects with 'x' and 'y'")
    around = named(value[0], _INNER)
    inner = [point[around] if isinstance(point.get(around), Mapping) else point for point in value]
    all_keys = dict.fromkeys(itertools.chain.from_iterable(inner))
    axes = [key for names in _AXES.values() if (key := named(all_keys, names)) is not None]
    rows = [[point.get(axis) for axis in axes] for point in inner]
    key = next((found for point in value if (found := named(point, _SCORES))), None)
    scores = None if key is None else _scores([point.get(key) for point in value], f"{where}, {key}")
    name = named(value[0], _NAMES)
    names = None if name is None else tuple(str(point.get(name)) for point in value)
    place = named(value[0], _PLACES) if name is None else None
    numbers = None if place is None else _numbered([point.get(place) for point in value])
    used = {*axes, key, name, around, *([] if numbers is None else [place])}
    unread = tuple(str(other) for other in value[0] if other not in used)
    values = array_of(rows, where, (None, len(axes)))
    return Points(values, scores, numbers or names, unread, has_depth=named(all_keys, _AXES["z"]) is not None)


def _scores(values: list[Any], where: str) -> np.ndarray:
    """Return scores, which Kinect's SDK writes as words."""
    told = [
        _STATES.get(value.replace("_", "").lower(), value) if isinstance(value, str) else value
        for value in values
    ]
    return array_of(told, where, (None,))


def _numbered(values: list[Any]) -> tuple[str, ...] | None:
    """Return the joints' numbers as names; () where they stand in the order of their numbers, None if they are none."""
    if not all(type(value) is int and value >= 0 for value in values) or len(set(values)) < len(values):
        return None
    return () if values == list(range(len(values))) else tuple(map(str, values))
