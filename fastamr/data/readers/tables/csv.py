"""Motion as a table: one row a joint, with a line of column names.

``frame, body, joint, x, y[, z][, confidence][, clip][, label]`` in any order, separated by commas, semicolons or
tabs. ``joint`` is a joint's name or its index; ``body`` may be missing where there is one; ``clip`` names the clip that
a row belongs to, without it all rows are one clip named after the file; ``label`` is a class name or index.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ....skeleton import SkeletonLayout, get_layout
from ...packed.dataset import PackedSkeletons
from ..common.layout_choice import choose_layout, layout_of_names, plain
from ..common.poses import Poses, pack_poses, reading_note, seen_from
from ..common.reader import Reader, Reading, Source

_REQUIRED = ("frame", "joint", "x", "y")
_KNOWN = (*_REQUIRED, "body", "z", "confidence", "clip", "label")


def read(
    source: Source, *, layout: str | SkeletonLayout | None = None, min_confidence: float = 0.0
) -> Reading:
    """Read a table.

    A joint without a row, with an empty or NaN coordinate, or with a confidence below ``min_confidence`` or of 0 is
    marked as not seen.

    Args:
        source: the file, in UTF-8.
        layout: the skeleton; None tells it from the joints' names, or from their number.
        min_confidence: see above.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a row is not sound (which line, and why), or the layout cannot be told.
    """
    path = source.path
    if not path.is_file():
        raise FileNotFoundError(f"no table {path}")
    table = _Table(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table.read(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, byte {error.start}: not in UTF-8; save it in UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path}, line {table.line}: {error}") from None
    return Reading(table.pack(layout, min_confidence))


_ROW = "a row a joint of frame, joint, x, y[, z][, body][, confidence][, clip][, label]"
READER = Reader("csv", (".csv", ".tsv"), read, holds=(_ROW,))


@dataclass
class _Table:
    """The rows of a table, gathered into poses."""

    path: Path
    line: int = 1
    columns: dict[str, int] = field(default_factory=dict)
    clips: dict[str, int] = field(default_factory=dict)
    bodies: dict[str, int] = field(default_factory=dict)
    joints: dict[str, int] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    poses: dict[tuple[int, int, int], int] = field(default_factory=dict)
    pose_lines: list[int] = field(default_factory=list)
    cells: list[tuple[int, int]] = field(default_factory=list)
    cell_lines: list[int] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    _width: int = 0
    _measures: list[tuple[str, int]] = field(default_factory=list)

    def read(self, file: Iterator[str]) -> None:
        """Read the header and all rows."""
        header = next(file, "")
        if not header.strip():
            raise ValueError(f"{self.path}: empty, expected a line with {', '.join(_REQUIRED)} and more")
        delimiter = max(",;\t", key=header.count)
        self._header(next(csv.reader([header], delimiter=delimiter)))
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        for row in rows:
            self.line = rows.line_num + 1
            if any(cell.strip() for cell in row):
                self._row(row)
        if not self.values:
            raise ValueError(f"{self.path}: no row after the line of column names")

    def _header(self, names: list[str]) -> None:
        found = [name.strip().lower() for name in names]
        for name in _REQUIRED:
            if name not in found:
                raise ValueError(f"{self.path}, line 1: no column {name!r}, expected {', '.join(_REQUIRED)}")
        twice = {name for name in found if name in _KNOWN and found.count(name) > 1}
        if twice:
            raise ValueError(f"{self.path}, line 1: column {sorted(twice)[0]!r} occurs twice")
        self.columns = {name: place for place, name in enumerate(found) if name in _KNOWN}
        self._width = max(self.columns.values()) + 1
        self._measures = [
            (name, self.columns[name]) for name in ("x", "y", "z", "confidence") if name in self.columns
        ]

    def _row(self, row: list[str]) -> None:
        if len(row) < self._width:
            raise self._error(f"{len(row)} cells, expected at least {self._width}")
        clip = self._number(self.clips, row, "clip", self.path.stem)
        body = self._number(self.bodies, row, "body", "0")
        joint = self._number(self.joints, row, "joint", "")
        key = clip, body, self._frame(row[self.columns["frame"]])
        pose = self.poses.setdefault(key, len(self.pose_lines))
        if pose == len(self.pose_lines):
            self.pose_lines.append(self.line)
        if "label" in self.columns:
            label = row[self.columns["label"]].strip()
            if self.labels.setdefault(clip, label) != label:
                raise self._error(f"label {label!r}, but the clip began with {self.labels[clip]!r}")
        self.cells.append((pose, joint))
        self.cell_lines.append(self.line)
        self.values.append([self._value(row[place], name) for name, place in self._measures])

    def _number(self, known: dict[str, int], row: list[str], column: str, default: str) -> int:
        """Return the number of a clip, body or joint, a new one where it occurs first."""
        name = row[self.columns[column]].strip() if column in self.columns else default
        number = known.get(name)
        if number is not None:
            return number
        if not name:
            raise self._error(f"{column} is empty")
        return known.setdefault(name, len(known))

    def _frame(self, text: str) -> int:
        try:
            frame = int(text) if len(text) < 18 else -1
        except ValueError:
            frame = -1
        if frame < 0:
            raise self._error(f"frame is {text[:60]!r}, expected a whole number from 0")
        return frame

    def _value(self, text: str, name: str) -> float:
        try:
            value = float(text or "nan")
        except ValueError:
            if not text.strip():
                return math.nan
            raise self._error(f"{name} is {text[:60]!r}, expected a number") from None
        if math.isinf(value):
            raise self._error(f"{name} is not finite")
        return value

    def _error(self, reason: str) -> ValueError:
        return ValueError(f"{self.path}, line {self.line}: {reason}")

    def pack(self, layout: str | SkeletonLayout | None, min_confidence: float) -> PackedSkeletons:
        """Return the poses as a data set."""
        channels = 3 if "z" in self.columns else 2
        skeleton, order = self._skeleton(layout, channels)
        pose, joint = np.array(self.cells).T
        joint = np.array(order)[joint]
        self._check_twice(pose, joint)
        values = np.array(self.values, dtype=np.float32)
        coords = np.zeros((len(self.poses), skeleton.num_joints, channels), dtype=np.float32)
        valid = np.zeros(coords.shape[:2], dtype=bool)
        seen = np.isfinite(values).all(axis=1)
        if "confidence" in self.columns:
            seen &= seen_from(values[:, -1], min_confidence)
        coords[pose[seen], joint[seen]] = values[seen, :channels]
        valid[pose, joint] = seen
        clip, body, frame = np.array(list(self.poses)).T
        labels, label_names = self._classes()
        return pack_poses(
            Poses(clip, body, frame, coords, valid),
            layout=skeleton,
            names=list(self.clips),
            where=lambda place: f"{self.path}, line {self.pose_lines[place]}",
            labels=labels,
            label_names=label_names,
            steps=reading_note(min_confidence) if "confidence" in self.columns else (),
        )

    def _skeleton(
        self, layout: str | SkeletonLayout | None, channels: int
    ) -> tuple[SkeletonLayout, list[int]]:
        """Return the layout, and the index in it of each joint of the table."""
        names = list(self.joints)
        if all(name.isdecimal() and len(name) < 6 for name in names):
            indices = [int(name) for name in names]
            skeleton = choose_layout(
                layout,
                get_layout(layout).num_joints if layout else max(indices) + 1,
                channels,
                str(self.path),
            )
            if max(indices) >= skeleton.num_joints:
                raise ValueError(
                    f"{self.path}: joint {max(indices)}, but layout {skeleton.name!r} has joints 0 to "
                    f"{skeleton.num_joints - 1}"
                )
            return skeleton, indices
        found = get_layout(layout) if layout is not None else layout_of_names(names)
        if found is None:
            raise ValueError(
                f"{self.path}: the joints {', '.join(names[:5])}, ... are those of no known skeleton; name its layout"
            )
        places = {plain(joint): place for place, joint in enumerate(found.joints)}
        for name in names:
            if plain(name) not in places:
                raise ValueError(f"{self.path}: layout {found.name!r} has no joint {name[:60]!r}")
        return found, [places[plain(name)] for name in names]

    def _check_twice(self, pose: np.ndarray, joint: np.ndarray) -> None:
        order = np.lexsort((joint, pose))
        same = (np.diff(pose[order]) == 0) & (np.diff(joint[order]) == 0)
        if same.any():
            place = int(np.flatnonzero(same)[0])
            one, other = sorted((int(order[place]), int(order[place + 1])))
            raise ValueError(
                f"{self.path}, line {self.cell_lines[other]}: the same joint of the same body and frame as line "
                f"{self.cell_lines[one]}"
            )

    def _classes(self) -> tuple[list[int] | None, list[str]]:
        """Return the clips' labels and the class names; numbers are indices, an empty cell is unknown."""
        if not self.labels:
            return None, []
        texts = [self.labels[clip] for clip in range(len(self.clips))]
        if all(text.isdecimal() and len(text) < 9 for text in texts if text):
            return [int(text) if text else -1 for text in texts], []
        names = sorted({text for text in texts if text})
        return [names.index(text) if text else -1 for text in texts], names
