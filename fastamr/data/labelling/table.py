"""A table that says of each clip its class, and perhaps its subject, its half of a split and its person."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SPELLINGS: dict[str, tuple[str, ...]] = {
    "name": ("name", "clip", "file", "filename", "path", "filepath", "video", "sample", "sequence", "recording", "id"),
    "label": ("label", "class", "action", "category", "activity", "gesture", "target", "annotation"),
    "subject": ("subject", "participant", "performer", "actor", "subj", "user"),
    "split": ("split", "set", "subset", "partition", "half"),
    "person": ("person", "body", "track", "trackid", "pid", "bodyid", "idx"),
}  # fmt: skip
"""What each column may be called, without case and separators; ``clip_name`` and ``clip_id`` mean ``clip``."""

_HALVES = {
    "train": ("train", "training", "trainset", "tr"),
    "test": ("test", "testing", "testset", "te", "eval", "evaluation"),
    "val": ("val", "valid", "validation", "valset", "dev"),
}
_UNKNOWN = {"", "-", "none", "nan", "null", "?", "unknown", "n/a", "na"}


@dataclass
class LabelTable:
    """The rows of a table.

    Args:
        path: where it lies.
        lines: the line of each row, from 1.
        columns: the cells by the name of the column: ``name`` and ``label``, where given ``subject``, ``split`` and
            ``person``, and all others under their own names. Unknown values are "".
        notes: how it was understood.
    """

    path: Path
    lines: list[int]
    columns: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)

    def where(self, row: int) -> str:
        """Name the place of a row in words."""
        return f"{self.path}, line {self.lines[row]}"

    def halves(self) -> list[str]:
        """Return ``train``, ``test``, ``val`` or "" of each row.

        Raises:
            ValueError: a word names no half.
        """
        found = []
        for row, word in enumerate(self.columns["split"]):
            half = half_of(word)
            if half is None and word:
                raise ValueError(
                    f"{self.where(row)}: split is {word[:60]!r}, expected train, test or val, or nothing"
                )
            found.append(half or "")
        return found


def half_of(word: str) -> str | None:
    """Return ``train``, ``test`` or ``val`` as a word names it, or None."""
    return next((half for half, words in _HALVES.items() if word.lower() in words), None)


def read_table(path: str | Path, is_clip: Callable[[str], bool]) -> LabelTable:
    """Read a table of labels.

    A line of column names begins it, see :data:`SPELLINGS`; without one the first column names the clip and the second
    its class, which is taken so where ``is_clip`` knows the first cell. Cells are parted by commas, semicolons, tabs
    or, without these, by spaces.

    Args:
        path: the file, in UTF-8.
        is_clip: tells whether a word names a clip.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no column names clips or classes, a row is too short, or there is no row.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no table of labels {path}; --labels takes the word folder, or a file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, byte {error.start}: not in UTF-8; save it in UTF-8") from None
    rows = _rows(text)
    if not rows:
        raise ValueError(f"{path}: empty, expected a line with the columns name, label and rows below it")
    header = [cell.strip() for cell in rows[0][1]]
    places = _columns(header)
    notes: list[str] = []
    if "name" not in places or "label" not in places:
        if len(header) < 2 or not is_clip(header[0]):
            raise ValueError(
                f"{path}, line 1: columns {', '.join(header)[:120]}; expected name and label (or clip, file, class, "
                f"action, ...), and where known subject, split, person"
            )
        places = {"name": 0, "label": 1}
        notes.append(
            f"{path} has no line of column names: the first column is taken as name, the second as label"
        )
        if len(header) > 2:
            notes.append(f"{path}: columns beyond the second are not read; name them in the first line")
        rows = [(0, []), *rows]
    lines: list[int] = []
    cells: dict[str, list[str]] = {name: [] for name in places}
    for line, row in rows[1:]:
        if len(row) <= max(places["name"], places["label"]):
            raise ValueError(f"{path}, line {line}: {len(row)} cells, expected at least name and label")
        lines.append(line)
        for name, place in places.items():
            cell = row[place].strip() if place < len(row) else ""
            cells[name].append("" if cell.lower() in _UNKNOWN else cell)
    if not lines:
        raise ValueError(f"{path}: no row after the line of column names")
    return LabelTable(path, lines, cells, notes)


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, each with its line."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    if delimiter not in first:
        return [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Return where each column stands; of several spellings of one the first in the list of spellings counts."""
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in header]
    found: dict[str, int] = {}
    for column, spellings in SPELLINGS.items():
        for spelling in spellings:
            words = [spelling, f"{spelling}name", f"{spelling}id", f"{column}{spelling}"]
            place = next((plain.index(word) for word in words if word in plain), None)
            if place is not None and place not in found.values():
                found[column] = place
                break
    others = {
        name: place
        for place, name in enumerate(header)
        if name and place not in found.values() and name not in found
    }
    return found | others
