"""Which skeleton the joints of a table are: by their names, or by their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ....skeleton import LAYOUTS, SkeletonLayout
from ..common.layout_choice import Joints, joints_by_index, joints_by_name
from .column_names import common_words

_MOST = 9999


def joints_of(
    names: Sequence[str], channels: int, where: str, given: str | SkeletonLayout | None = None
) -> Joints:
    """Return the skeleton of a table's joints, and where each of its joints stands among them.

    Args:
        names: the joints of the table, each once, names or numbers.
        channels: 2 or 3 coordinates.
        where: names the file in errors.
        given: the layout that was asked for.

    Raises:
        ValueError: names and numbers are mixed, or the layout cannot be told or does not fit.
    """
    numbers = [int(name) if name.isdecimal() and len(name) < 18 else -1 for name in names]
    if all(number >= 0 for number in numbers):
        return _of_numbers(numbers, channels, where, given)
    if any(number >= 0 for number in numbers):
        word = next(name for name, number in zip(names, numbers, strict=True) if number < 0)
        number = next(number for number in numbers if number >= 0)
        raise ValueError(f"{where}: joints {word[:60]!r} and {number}; name all joints or number all")
    return _of_names(names, where, given)


def _of_names(names: Sequence[str], where: str, given: str | SkeletonLayout | None) -> Joints:
    """Return the skeleton of named joints; words that all names share are left out where a layout has the rest."""
    first, last = common_words(names)
    short = ["_".join(name.split("_")[first : len(name.split("_")) - last]) for name in names]
    if given is None:
        found = joints_by_name(short, where)
        return (
            found
            if short == list(names) or found.layout in LAYOUTS.values()
            else joints_by_name(names, where)
        )
    try:
        return joints_by_name(names, where, given=given)
    except ValueError:
        if short == list(names):
            raise
        return joints_by_name(short, where, given=given)


def _of_numbers(
    numbers: Sequence[int], channels: int, where: str, given: str | SkeletonLayout | None
) -> Joints:
    """Return the skeleton of numbered joints, which are counted from 1 only where no other reading is likely."""
    first, last = min(numbers), max(numbers)
    if last > _MOST:
        raise ValueError(
            f"{where}: joint {last}, expected numbers of joints, from 0; name them in a column 'joint'"
        )
    if given is None and first > 0 and not (first == 1 and len(numbers) == last):
        raise ValueError(
            f"{where}: joint 0 never occurs, joints {first} to {last} do, {len(numbers)} in all; whether they are "
            f"counted from 0 or 1 is not clear: name the skeleton with --layout"
        )
    usual = {17: "coco17"} if channels == 2 else None
    told = joints_by_index(numbers, channels, where, given=given, usual=usual)
    places = {number: place for place, number in enumerate(numbers)}
    return dataclasses.replace(told, order=tuple(places.get(number, -1) for number in told.order))


def placed(joints: Joints, count: int) -> np.ndarray:
    """Return where each of a file's ``count`` joints stands in the layout ``(count,)``; -1 = it is left out."""
    place = np.full(count, -1, dtype=np.int64)
    for target, source in enumerate(joints.order):
        if source >= 0:
            place[source] = target
    return place
