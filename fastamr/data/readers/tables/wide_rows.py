"""A table with a row a frame: its columns gathered into poses."""

from __future__ import annotations

import dataclasses

import numpy as np

from ....skeleton import SkeletonLayout
from .clips import Rows
from .columns import JointColumns, Plan
from .joints import joints_of
from .table_poses import TablePoses
from .text import Columns

_STRETCH = 20
"""So many places for joints a column may take, where people have different ones (choice)."""


def wide_poses(
    plan: Plan,
    columns: Columns,
    rows: Rows,
    where: str,
    given: str | SkeletonLayout | None,
    points: np.ndarray,
    seen: np.ndarray,
) -> TablePoses:
    """Gather the columns into poses: one a row, or one a row and person where the columns name people.

    Args:
        plan: what the columns are, ``J`` joints.
        columns: the columns.
        rows: whose row each is.
        where: the file.
        given: the layout that was asked for.
        points: ``(n, J, C)`` float64, the coordinates in the order of ``plan.joints``.
        seen: ``(n, J)`` bool.

    Raises:
        ValueError: columns and rows both name people, or the layout cannot be told.
    """
    kept = np.flatnonzero(rows.keep)
    _check_people(plan.joints, where)
    strange = _strange(plan.joints)
    columns_of = [(place, joint) for place, joint in enumerate(plan.joints) if joint.body not in strange]
    people = list(dict.fromkeys(joint.body for _, joint in columns_of))
    names = list(dict.fromkeys(joint.joint for _, joint in columns_of))
    joints = joints_of(names, points.shape[2], where, given)
    joints = dataclasses.replace(joints, notes=(*joints.notes, *strange.values()))
    if people != [""] and rows.body is not None:
        raise ValueError(
            f"{where}: the columns name people ({people[0]}, ...), and so does a column of each row; remove one"
        )
    whole = np.zeros((len(kept), len(people), len(names), points.shape[2]), dtype=np.float32)
    shown = np.zeros(whole.shape[:3], dtype=bool)
    person_places = {person: place for place, person in enumerate(people)}
    joint_places = {name: place for place, name in enumerate(names)}
    for place, joint in columns_of:
        at = person_places[joint.body], joint_places[joint.joint]
        whole[:, at[0], at[1]] = points[kept, place]
        shown[:, at[0], at[1]] = seen[kept, place]
    whole, shown = joints.take(whole, shown)
    count = len(people)
    clip, frame = np.repeat(rows.clip[kept], count), np.repeat(rows.frame[kept], count)
    body = np.tile(np.arange(count), len(kept))
    is_told, body_names = True, None
    if people != [""]:
        body_names = people
    elif rows.body is not None:
        body = rows.body[kept]
    else:
        body = _place_in_frame(clip, frame)
        is_told = not body.any()
    size = len(kept) * count
    return TablePoses(
        joints, clip, frame, body, is_told, whole.reshape(size, *whole.shape[2:]),
        shown.reshape(size, -1), np.repeat(columns.line[kept], count), body_names,
    )  # fmt: skip


def _check_people(joints: list[JointColumns], where: str) -> None:
    """Raise where people and joints fill few of their table, which would be stored whole."""
    people = list(dict.fromkeys(joint.body for joint in joints))
    names = {joint.joint for joint in joints}
    if len(people) * len(names) > _STRETCH * len(joints):
        raise ValueError(
            f"{where}: the columns name {len(people)} people ({people[0]}, {people[1]}, ...) and {len(names)} joints, "
            f"but each person only some of them; name the joints of all people alike, as in a_nose_x, b_nose_x"
        )


def _strange(joints: list[JointColumns]) -> dict[str, str]:
    """Return people who share no joint with the one that has most, DeepLabCut's ``single``, and why."""
    own: dict[str, set[str]] = {}
    for joint in joints:
        own.setdefault(joint.body, set()).add(joint.joint)
    most = max(own.values(), key=len)
    return {
        body: f"{body or 'points without a person'} ({', '.join(sorted(names))}): no joint of the others, left out"
        for body, names in own.items()
        if names.isdisjoint(most)
    }


def _place_in_frame(clip: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return how many rows of the same frame stand before each row."""
    order = np.lexsort((np.arange(len(clip)), frame, clip))
    begins = np.r_[True, (np.diff(clip[order]) != 0) | (np.diff(frame[order]) != 0)]
    count = np.arange(len(clip))
    place = np.empty(len(clip), dtype=np.int64)
    place[order] = count - np.maximum.accumulate(np.where(begins, count, 0))
    return place
