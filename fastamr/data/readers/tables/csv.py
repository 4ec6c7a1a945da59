"""Motion as a table with a line of column names: one row a joint, or one row a frame.

A row a joint is ``frame, joint, x, y[, z]``, a row a frame ``frame, nose_x, nose_y[, nose_z], left_eye_x, ...``; both
may have a body, a confidence, a clip, a label, a time, a split, a subject and more, in any order and in the spellings
that :mod:`.columns` knows, separated by commas, semicolons, tabs or bars. Without a column of clips all rows are one
clip, named after the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....skeleton import SkeletonLayout
from ...packed.dataset import PackedSkeletons
from ..common.frame_names import frames_of_names
from ..common.linking import tracks_without_ids
from ..common.poses import Poses, pack_poses, reading_note, seen_from
from ..common.reader import Reader, Reading, Source
from ..common.score_channel import looks_like_score
from .clips import Clips, Rows
from .column_names import PIXELS, UNITS
from .columns import LONG, WIDE, Plan, plan_columns
from .long_rows import joint_rows, long_poses
from .table_poses import TablePoses
from .text import Columns, Table
from .wide_rows import wide_poses


def read(
    source: Source,
    *,
    layout: str | SkeletonLayout | None = None,
    min_confidence: float = 0.0,
    track: bool = True,
) -> Reading:
    """Read a table.

    A joint without a row, with an empty, missing (``NaN``, ``NA``, ``null``) or unsound coordinate, or with a
    confidence below ``min_confidence`` or of 0 is marked as not seen. Clips are in the natural order of their names,
    the bodies of a clip in the order in which they come.

    Args:
        source: the file, in UTF-8, or in UTF-16 with its mark.
        layout: the skeleton; None tells it from the joints' names, or from their number.
        min_confidence: see above.
        track: link people from frame to frame where no column tells them apart; False refuses that.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the columns cannot be told, more than half of the rows are not sound (where, and why), or the layout
            cannot be told.
    """
    path = source.path
    if not path.is_file():
        raise FileNotFoundError(f"no table {path}")
    where, table = str(path), Table(path)
    names = table.header.names
    plan = plan_columns(table.header, where)
    texts = [*plan.roles.values(), *plan.splits.values(), *plan.others]
    needed = [*plan.numbers, *plan.roles.values()]
    columns = table.read(plan.numbers, texts, needed)
    notes = [*plan.notes, *columns.notes]
    clips = Clips(plan, columns, names, where, path.stem, notes)
    poses_about = len(columns.line)
    if not plan.joints:
        named, poses_about = joint_rows(plan, columns)
        clips.drop(~named, "joint is empty")
    rows = clips.rows(poses_about, frames_of_names)
    points, seen = _values(plan, columns, min_confidence, names, notes)
    gather = wide_poses if plan.joints else long_poses
    # What float32 cannot hold becomes infinite, which the packing refuses.
    with np.errstate(over="ignore"):
        poses = gather(plan, columns, rows, where, layout, points, seen)
    data = _packed(poses, rows, plan, where, track, notes, min_confidence)
    if clips.unread:
        notes.append("columns not read: " + _shown([names[place] for place in sorted(clips.unread)]))
    return Reading(data, notes=[*poses.joints.notes, *notes])


READER = Reader("csv", (".csv", ".tsv"), read, holds=(LONG, WIDE))


def _shown(names: Sequence[str], most: int = 30) -> str:
    shown = ", ".join(name or "(no name)" for name in names[:most])
    return shown + (f", ... ({len(names)} in all)" if len(names) > most else "")


def _values(
    plan: Plan, columns: Columns, min_confidence: float, names: Sequence[str], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates and which were seen: ``(n, C)`` and ``(n,)``, or ``(n, J, C)`` and ``(n, J)``."""
    sets = [(joint.axes, joint.score) for joint in plan.joints] or [(plan.axes, plan.score)]
    points = np.stack([np.stack([columns.numbers[at] for at in axes], axis=-1) for axes, _ in sets], axis=1)
    seen = np.isfinite(points).all(axis=-1)
    for place, (_, score) in enumerate(sets):
        if score is not None:
            seen[:, place] &= seen_from(columns.numbers[score], min_confidence)
    if all(score is None for _, score in sets):
        points, seen = _score_of_depth(points, seen, min_confidence, names[sets[0][0][-1]], notes)
    points = np.where(seen[..., None], points, 0.0)
    if points.shape[-1] == 2 and (points >= 0).all():
        corner = seen & ~points.any(axis=-1)
        if corner.any() and not corner[seen].all():
            seen = seen & ~corner
            notes.append(f"{int(corner.sum())} joints at exactly (0, 0) are taken as not seen")
    if UNITS.get(plan.unit, 1.0) != 1.0:
        points = points * UNITS[plan.unit]
        notes.append(f"coordinates in {plan.unit!r}, as their columns say, are scaled to metres")
    elif plan.unit and plan.unit not in {*UNITS, *PIXELS}:
        notes.append(
            f"coordinates in {plan.unit!r}, as their columns say, which is no known unit, are kept as they are; "
            f"--preprocess scale:factor=... makes them metres"
        )
    return (points, seen) if plan.joints else (points[:, 0], seen[:, 0])


def _score_of_depth(
    points: np.ndarray, seen: np.ndarray, min_confidence: float, name: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Take a third coordinate that is a score beside pixels as the confidence."""
    if points.shape[-1] == 2 or not looks_like_score(points[..., 2], points[..., :2]):
        return points, seen
    notes.append(
        f"column {name!r} lies within 0 and about 1 beside pixels: taken as the confidence, not as a coordinate"
    )
    return points[..., :2], seen & seen_from(points[..., 2], min_confidence)


def _packed(
    poses: TablePoses,
    rows: Rows,
    plan: Plan,
    where: str,
    track: bool,
    notes: list[str],
    min_confidence: float,
) -> PackedSkeletons:
    """Return the poses as a data set, people who are not told apart linked from frame to frame."""

    def line(place: int) -> str:
        return f"{where}, line {poses.line[place]}"

    body, names = poses.body, poses.body_names
    if not poses.is_told:
        body, said = tracks_without_ids(
            *(poses.clip, poses.frame, poses.coords, poses.valid),
            track=track,
            where=line,
            way_on="add a column 'body' with a number for each person",
        )
        _check_people(poses, where)
        notes += said
    elif rows.body is not None:
        names = rows.body_names
    steps: tuple[dict[str, Any], ...] = ()
    if plan.score is not None or any(joint.score is not None for joint in plan.joints):
        steps += reading_note(min_confidence)
    if UNITS.get(plan.unit, 1.0) != 1.0:
        steps += ({"name": "note", "about": "unit", "source": plan.unit, "factor": UNITS[plan.unit]},)
    data = pack_poses(
        Poses(poses.clip, body, poses.frame, poses.coords, poses.valid),
        layout=poses.joints.layout,
        names=rows.clip_names,
        where=line,
        labels=rows.about.labels,
        label_names=rows.about.label_names,
        fps=rows.about.fps,
        body_names=names,
        steps=steps,
        notes=notes,
    )
    rows.about.add_to(data, rows.clip_names)
    return data


def _check_people(poses: TablePoses, where: str) -> None:
    """Refuse people who are not told apart and of whom the second begins after frames of the first, as a clip does."""
    order = np.argsort(poses.line, kind="stable")
    clip, frame, line = poses.clip[order], poses.frame[order], poses.line[order]
    begins = np.r_[True, (np.diff(clip) != 0) | (np.diff(frame) != 0)]
    runs = np.flatnonzero(begins)
    _, first, times = np.unique(
        np.stack([clip[runs], frame[runs]]), axis=1, return_index=True, return_counts=True
    )
    if (times == 1).all():
        return
    again = np.ones(len(runs), dtype=bool)
    again[first] = False
    place = runs[int(again.argmax())]
    raise ValueError(
        f"{where}, line {line[place]}: frame {frame[place]} comes again, and no column tells whether this is another "
        f"clip or another person; add a column 'clip', or a column 'body'"
    )
