"""The cells of a table of text: encoding, separators, the lines of column names, and rows in blocks.

A row that cannot be used costs that row, a cell that is no number costs that value; both are counted, with the line of
the first. More than half of them is a fault of the whole table.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .cells import Bad, Commas, numbers_of

_BLOCK = 1 << 16
_SEPARATORS = ",;\t|"
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_DLC = ("scorer", "individuals", "bodyparts", "coords")
_AXES = {"x", "y", "z", "likelihood", "confidence", "conf", "score", "visibility", "c", "v"}
# By the first word of the file.
_TOOLS = {
    **dict.fromkeys(("trajectories", "devices", "model outputs", "joints"), "Vicon"),
    "no_of_frames": "Qualisys", "format version": "OptiTrack", "pathfiletype": "OpenSim (.trc)",
}  # fmt: skip


@dataclass
class Header:
    """The names of a table's columns.

    Args:
        names: one a column.
        paths: for a table with several lines of names (DeepLabCut), ``(individual, part, coordinate)`` of each column,
            all empty for a column of row names; None = one line of names.
        line: the line of the file that they end on.
        separator: what stands between cells.
    """

    names: list[str]
    paths: list[tuple[str, str, str]] | None
    line: int
    separator: str


@dataclass
class Codes:
    """A column of texts: ``names[values[row]]``.

    Args:
        values: ``(n,)`` int64.
        names: the different texts, without blanks around them, in the order in which they occur first.
    """

    values: np.ndarray
    names: list[str]


@dataclass
class Columns:
    """The columns of a table that were asked for, ``n`` rows.

    Args:
        line: ``(n,)`` int64, the line of the file of each row.
        numbers: ``(n,)`` float64 by column; NaN = no value.
        codes: texts by column.
        notes: what was wrong with the table, a line each.
    """

    line: np.ndarray
    numbers: dict[int, np.ndarray]
    codes: dict[int, Codes]
    notes: list[str] = field(default_factory=list)


class Table:
    """A table of text, open for reading.

    Args:
        path: the file, in UTF-8, or in UTF-16 with its mark.

    Raises:
        ValueError: the file is empty or not in such an encoding, or has no line of column names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            head = file.read(4)
        encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
        self._lines = _decoded(path, encoding)
        first, before, separator = self._first_lines()
        separator = separator or _separator(first)
        self._rows = csv.reader(
            itertools.chain([first], self._lines), delimiter=separator, strict=True, skipinitialspace=True
        )
        self._before = before
        self.header = self._header(separator)

    def _first_lines(self) -> tuple[str, int, str]:
        """Return the line of column names, how many lines stand before it, and the separator where one is named."""
        comments, separator = [], ""
        for before, line in enumerate(self._lines):
            text = line.strip()
            if text.startswith("#"):
                comments.append(text.lstrip("# "))
            elif found := re.fullmatch(r"(?i)sep=(.)", line.rstrip("\r\n")):
                separator = found[1]
            elif text and comments and not re.search(r"[^\W\d]", re.sub(r"(?i)nan|\de[+-]?\d", "", text)):
                # NumPy writes the names as a comment.
                self._lines = itertools.chain([line], self._lines)
                return comments[-1] + "\n", before - 1, separator
            elif text:
                return line, before, separator
        raise ValueError(
            f"{self.path}: empty, expected a line of column names such as frame, joint, x, y, then rows"
        )

    def _header(self, separator: str) -> Header:
        names = [_flat(cell.strip()) for cell in self._next()]
        tool = _TOOLS.get(names[0].lower())
        if tool is not None and (len(list(filter(None, names))) <= 2 or not tool.startswith("Vicon")):
            raise ValueError(
                f"{self.path} is a table of {tool} with several lines of names, which is not read; write one line, "
                f"Frame, NAME_x, NAME_y, NAME_z, ..., above the numbers, or export C3D or BVH and import that"
            )
        if names[0].lower() not in _DLC:
            more = self._second_line(names, separator)
            if more is not None:
                return more
            return Header(names, None, self._line, separator)
        levels = {names[0].lower(): names}
        while "coords" not in levels and len(levels) < len(_DLC):
            row = [cell.strip() for cell in self._next()]
            level = row[0].lower() if row else ""
            if level not in _DLC or level in levels or len(row) != len(names):
                raise ValueError(
                    f"{self.path}, line {self._line}: expected one of the lines {', '.join(_DLC)} of DeepLabCut"
                )
            levels[level] = row
        if "bodyparts" not in levels or "coords" not in levels:
            raise ValueError(f"{self.path}: the lines of column names lack bodyparts or coords (DeepLabCut)")
        none = [""] * len(names)
        rows = (levels.get("individuals", none), levels["bodyparts"], levels["coords"])
        paths = [
            path if place and path[2] else ("", "", "") for place, path in enumerate(zip(*rows, strict=True))
        ]
        return Header(
            ["_".join(filter(None, path)) or f"column {place + 1}" for place, path in enumerate(paths)],
            paths, self._line, separator,
        )  # fmt: skip

    def _second_line(self, names: list[str], separator: str) -> Header | None:
        """Return the names of columns that stand in two lines, joints above x, y, ..., as pandas writes them."""
        if len(names) < 6 or len(set(names)) > 1 + len(names) // 2:
            return None
        axes = [cell.strip().lower() for cell in self._next()]
        told = [place for place, axis in enumerate(axes) if axis in _AXES]
        if len(axes) != len(names) or 3 * len(told) < 2 * len(names) or not {"x", "y"} <= set(axes):
            shown = ", ".join(filter(None, names[:6]))
            raise ValueError(
                f"{self.path}, line {self._line}: the columns are {shown}, ..., names that occur again, expected "
                f"x, y, ... below them, or one line of names such as nose_x, nose_y"
            )
        above = list(itertools.accumulate(names, lambda before, name: name or before))
        joined = [f"{above[at]}_{axis}" if at in told else names[at] or axis for at, axis in enumerate(axes)]
        return Header(joined, None, self._line, separator)

    def _next(self) -> list[str]:
        try:
            return next(self._rows, [])
        except csv.Error as error:
            raise ValueError(f"{self.path}, line {self._line + 1}: {error}") from None

    @property
    def _line(self) -> int:
        return self._before + self._rows.line_num

    def read(self, numbers: Iterable[int], codes: Iterable[int], needed: Iterable[int]) -> Columns:
        """Read the rows.

        Args:
            numbers: the columns to read as numbers.
            codes: those to read as texts.
            needed: those that a row must reach to.

        Raises:
            ValueError: there is no row, or more than half of the rows, or of a column's numbers, are not sound.
        """
        width, least = len(self.header.names), max(needed) + 1
        sizes, lines = Bad(), []
        values: dict[int, list[np.ndarray]] = {place: [] for place in numbers}
        texts: dict[int, list[np.ndarray]] = {place: [] for place in codes}
        known: dict[int, dict[str, int]] = {place: {} for place in codes}
        bad = {place: Bad() for place in values}
        commas = {place: Commas() for place in values} if self.header.separator != "," else {}
        for line, rows in self._blocks():
            line, rows = _of_size(line, rows, least, width, sizes)
            if not rows:
                continue
            lines.append(np.array(line))
            cells = list(zip(*rows, strict=True))
            for place, parts in values.items():
                parts.append(numbers_of(cells[place], line, commas.get(place), bad[place]))
            for place, parts in texts.items():
                names = known[place]
                parts.append(np.array([names.setdefault(cell, len(names)) for cell in cells[place]]))
        if not lines and not sizes.count:
            raise ValueError(f"{self.path}: no row after the line of column names")
        found = Columns(np.concatenate(lines) if lines else np.zeros(0, dtype=np.int64), {}, {})
        self._complain(found, sizes, len(found.line) + sizes.count, "rows", "left out")
        found.numbers = {place: np.concatenate(parts) for place, parts in values.items()}
        self._complain_of_cells(found, bad)
        found.notes += self._note_of_commas(commas)
        found.codes = {place: _merged(np.concatenate(parts), known[place]) for place, parts in texts.items()}
        return found

    def _blocks(self) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Yield the lines and cells of rows that are not blank."""
        line: list[int] = []
        rows: list[list[str]] = []
        try:
            for row in self._rows:
                if any(map(str.strip, row)):
                    rows.append(row)
                    line.append(self._line)
                    if len(rows) == _BLOCK:
                        yield line, rows
                        line, rows = [], []
        except csv.Error as error:
            raise ValueError(f"{self.path}, line {self._line}: {error}") from None
        if rows:
            yield line, rows

    def _complain_of_cells(self, found: Columns, bad: dict[int, Bad]) -> None:
        """Note or refuse the cells that are no numbers; columns of the same fault, a row of units, share a note."""
        alike: dict[tuple[int, int, int, str], list[int]] = {}
        for place, cells in bad.items():
            alike.setdefault((cells.count, cells.of, cells.line, cells.reason), []).append(place)
        for places in alike.values():
            names = [repr(self.header.names[place]) for place in places]
            shown = ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")
            cells = bad[places[0]]
            cells.reason = f"{self.header.names[places[0]]} is {cells.reason}"
            what = f"cells of column{'s' * (len(names) > 1)} {shown}"
            self._complain(found, cells, cells.of, what, "taken as not seen")

    def _note_of_commas(self, commas: dict[int, Commas]) -> list[str]:
        """Return the note that commas are decimal ones.

        Raises:
            ValueError: they may separate thousands.
        """
        for cells in commas.values():
            if cells.thousands and cells.whole and not cells.decimal:
                raise ValueError(
                    f"{self.path}, line {cells.line}: {cells.thousands!r} may be a number of thousands or one with a "
                    f"decimal comma; write numbers without separators of thousands, and with a decimal point"
                )
        first = next((cells for cells in commas.values() if cells.decimal or cells.thousands), None)
        if first is None:
            return []
        text = first.decimal or first.thousands
        return [f"commas in numbers are decimal commas: {text!r} is {text.replace(',', '.')}"]

    def _complain(self, found: Columns, bad: Bad, of: int, what: str, fate: str) -> None:
        """Note what was not sound, or raise where that is most."""
        if not bad.count:
            return
        if 2 * bad.count > of:
            raise ValueError(f"{self.path}, line {bad.line}: {bad.reason}")
        found.notes.append(
            f"{bad.count} of {of} {what} {fate}, first in line {bad.line}: {bad.reason.split('; ')[0]}"
        )


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    with path.open(newline="", encoding=encoding) as file:
        try:
            yield from file
        except UnicodeError as error:
            place = f", byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
            raise ValueError(f"{path}{place}: not in {encoding.upper()[:6]}; save it in UTF-8") from None


def _flat(name: str) -> str:
    """Return the name of a column that pandas wrote as a tuple, ``('nose', 'x')``, with its parts joined."""
    if not re.fullmatch(r"\((?:\s*(?:'[^']*'|\d+)\s*,?)+\)", name):
        return name
    return "_".join(part.strip() for part in re.findall(r"[^'(),]+", name) if part.strip())


def _separator(line: str) -> str:
    """Return what separates the names of the columns."""
    most = max(_SEPARATORS, key=line.count)
    return most if most in line else " " if " " in line.strip() else ","


def _of_size(
    line: list[int], rows: list[list[str]], least: int, width: int, bad: Bad
) -> tuple[list[int], list[list[str]]]:
    """Return the rows of a block that have a cell for every name; those that lack cells at the end are filled."""
    if set(map(len, rows)) == {width}:
        return line, rows
    kept: tuple[list[int], list[list[str]]] = [], []
    for at, row in zip(line, rows, strict=True):
        cells = len(row)
        if cells < least:
            bad.add(at, f"{cells} cells, expected at least {least}; give each row a cell for every column")
        elif any(map(str.strip, row[width:])):
            bad.add(
                at,
                f"{cells} cells, expected {width}; with decimal commas, separate the columns by semicolons",
            )
        else:
            kept[0].append(at)
            kept[1].append([*row[:width], *[""] * (width - cells)])
    return kept


def _merged(values: np.ndarray, known: dict[str, int]) -> Codes:
    """Return a column's texts without the blanks around them."""
    names: dict[str, int] = {}
    merged = np.array([names.setdefault(name.strip(), len(names)) for name in known], dtype=np.int64)
    return Codes(merged[values], list(names))
