"""Which skeleton the joints of a table are: by their names, or by their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ....skeleton import SkeletonLayout, get_layout
from ..common.layout_choice import Joints, joints_by_count, joints_by_name

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
        return joints_by_index(numbers, channels, where, given)
    if any(number >= 0 for number in numbers):
        word = next(name for name, number in zip(names, numbers, strict=True) if number < 0)
        number = next(number for number in numbers if number >= 0)
        raise ValueError(f"{where}: joints {word[:60]!r} and {number}; name all joints or number all")
    return joints_by_name(names, where, given=given)


def joints_by_index(
    numbers: Sequence[int], channels: int, where: str, given: str | SkeletonLayout | None = None
) -> Joints:
    """Return the skeleton of joints that are numbered, from 0, or from 1 where 0 never occurs and the rest is whole.

    Args:
        numbers: the numbers that occur, each once, in the order of the file.
        channels: 2 or 3 coordinates.
        where: names the file in errors.
        given: the layout that was asked for.

    Raises:
        ValueError: it cannot be told, or a number is beyond the layout that was asked for.
    """
    first, last = min(numbers), max(numbers)
    layout = None if given is None else get_layout(given)
    if layout is None and last > _MOST:
        raise ValueError(f"{where}: joint {last}, expected numbers of joints, from 0; name them in a column 'joint'")
    if layout is not None:
        from_one = first > 0 and last == layout.num_joints
        if last - from_one >= layout.num_joints:
            raise ValueError(
                f"{where}: joint {last}, but layout {layout.name!r} has joints 0 to {layout.num_joints - 1}; name "
                f"another with --layout"
            )
        count = layout.num_joints
    else:
        from_one = first == 1 and len(numbers) == last
        count = last + 1 - from_one
        if first > 0 and not from_one:
            raise ValueError(
                f"{where}: joint 0 never occurs, joints {first} to {last} do, {len(numbers)} in all; whether they are "
                f"counted from 0 or 1 is not clear: name the skeleton with --layout"
            )
    usual = {17: "coco17"} if channels == 2 else None
    told = joints_by_count(count, channels, where, given=layout, usual=usual)
    places = {number - from_one: place for place, number in enumerate(numbers)}
    lacking = [joint for joint in range(count) if joint not in places]
    notes = list(told.notes)
    if from_one:
        notes.append(f"joints are counted from 1: joint 1 is {told.layout.joints[0]}")
    if lacking:
        names = ", ".join(told.layout.joints[joint] for joint in lacking[:8])
        more = f", ... ({len(lacking)} in all)" if len(lacking) > 8 else ""
        notes.append(f"joints of {told.layout.name} that never occur, marked as not seen: {names}{more}")
    order = tuple(int(places.get(joint, -1)) for joint in range(count))
    return dataclasses.replace(told, order=order, notes=tuple(notes))


def placed(joints: Joints, count: int) -> np.ndarray:
    """Return where each of a file's ``count`` joints stands in the layout ``(count,)``; -1 = it is left out."""
    place = np.full(count, -1, dtype=np.int64)
    for target, source in enumerate(joints.order):
        if source >= 0:
            place[source] = target
    return place
