"""A table with a row a joint: its rows gathered into poses."""

from __future__ import annotations

import numpy as np

from ....skeleton import SkeletonLayout
from .cells import is_missing
from .clips import Rows
from .columns import Plan
from .joints import joints_of, placed
from .table_poses import TablePoses
from .text import Columns


def joint_rows(plan: Plan, columns: Columns) -> tuple[np.ndarray, int]:
    """Return which rows name a joint, and of about how many poses they are."""
    codes = columns.codes[plan.roles["joint"]]
    named = ~np.array([is_missing(name) for name in codes.names])
    return named[codes.values], max(1, len(codes.values) // max(1, int(named.sum())))


def long_poses(
    plan: Plan,
    columns: Columns,
    rows: Rows,
    where: str,
    given: str | SkeletonLayout | None,
    points: np.ndarray,
    seen: np.ndarray,
) -> TablePoses:
    """Gather the rows into poses.

    Args:
        plan: what the columns are.
        columns: the columns.
        rows: whose row each is.
        where: the file.
        given: the layout that was asked for.
        points: ``(n, C)`` float64, the coordinates.
        seen: ``(n,)`` bool.

    Raises:
        ValueError: a joint occurs twice in a pose (both lines), people who are not told apart are not whole, or the
            layout cannot be told.
    """
    codes = columns.codes[plan.roles["joint"]]
    kept = np.flatnonzero(rows.keep)
    used = np.unique(codes.values[kept])
    names = [codes.names[code] for code in used.tolist()]
    joints = joints_of(names, points.shape[1], where, given)
    joint = np.searchsorted(used, codes.values[kept])
    clip, frame, line = rows.clip[kept], rows.frame[kept], columns.line[kept]
    is_told = rows.body is not None
    body = rows.body[kept] if rows.body is not None else _people(clip, frame, joint, line, where)
    key = np.stack([clip, body, frame])
    order = np.lexsort((frame, body, clip))
    begins = np.r_[True, (np.diff(key[:, order]) != 0).any(axis=0)]
    pose = np.empty(len(kept), dtype=np.int64)
    pose[order] = begins.cumsum() - 1
    _check_twice(pose, joint, line, where)
    count = int(begins.sum())
    first = np.full(count, len(kept), dtype=np.int64)
    np.minimum.at(first, pose, np.arange(len(kept)))
    place = placed(joints, len(names))[joint]
    coords = np.zeros((count, joints.layout.num_joints, points.shape[1]), dtype=np.float32)
    valid = np.zeros(coords.shape[:2], dtype=bool)
    shown = seen[kept] & (place >= 0)
    coords[pose[shown], place[shown]] = points[kept[shown]]
    valid[pose[shown], place[shown]] = True
    return TablePoses(
        joints, clip[first], frame[first], body[first], is_told or not body.any(), coords, valid, line[first]
    )


def _people(
    clip: np.ndarray, frame: np.ndarray, joint: np.ndarray, line: np.ndarray, where: str
) -> np.ndarray:
    """Return the person of each row of a table that does not tell people apart: the n-th whole one of the frame."""
    order = np.lexsort((line, joint, frame, clip))
    same = (np.diff(clip[order]) == 0) & (np.diff(frame[order]) == 0) & (np.diff(joint[order]) == 0)
    person = np.zeros(len(clip), dtype=np.int64)
    if not same.any():
        return person
    count = np.arange(len(order))
    person[order] = count - np.maximum.accumulate(np.where(np.r_[True, ~same], count, 0))
    by_line = np.lexsort((line, frame, clip))
    together = (np.diff(clip[by_line]) == 0) & (np.diff(frame[by_line]) == 0)
    mixed = np.r_[False, together & (np.diff(person[by_line]) < 0)]
    # Each person of a frame must have as many rows as the first one.
    group, size = np.unique(np.stack([clip, frame, person]), axis=1, return_counts=True)
    begins = np.r_[True, (np.diff(group[:2]) != 0).any(axis=0)]
    whole = size == size[np.maximum.accumulate(np.where(begins, np.arange(len(size)), 0))]
    if mixed.any() or not whole.all():
        place = int(np.flatnonzero(same)[0])
        one, other = line[order[place]], line[order[place + 1]]
        raise ValueError(
            f"{where}, line {other}: the same joint in the same frame as line {one}, and no column tells people "
            f"apart; add a column 'body' with a number for each person"
        )
    return person


def _check_twice(pose: np.ndarray, joint: np.ndarray, line: np.ndarray, where: str) -> None:
    order = np.lexsort((line, joint, pose))
    same = (np.diff(pose[order]) == 0) & (np.diff(joint[order]) == 0)
    if same.any():
        place = int(np.flatnonzero(same)[0])
        raise ValueError(
            f"{where}, line {line[order[place + 1]]}: the same joint of the same body and frame as line "
            f"{line[order[place]]}; give each row of a frame a joint or a body of its own"
        )
