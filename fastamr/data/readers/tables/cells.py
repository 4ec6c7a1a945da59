"""The cells of a table: which say that there is no value, and the numbers that the others are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MISSING = {"", "nan", "na", "n/a", "null", "none", "-", "nil", "<na>", "#n/a", "undefined"}
_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "visible": 1.0, "tracked": 1.0, "invisible": 0.0}
# The states of the Kinects' joints: K4ABT's confidence, and the tracking state.
_WORDS |= {"nottracked": 0.0, "inferred": 1.0, "low": 1.0, "medium": 2.0, "high": 3.0}
_WORDS |= dict.fromkeys(_MISSING, math.nan)


def is_missing(text: str) -> bool:
    """Tell whether a cell says that there is no value."""
    return text.strip().lower() in _MISSING


@dataclass
class Bad:
    """How many were not sound, of how many, and where and why the first was not."""

    count: int = 0
    of: int = 0
    line: int = 0
    reason: str = ""

    def add(self, line: int, reason: str) -> None:
        """Count one."""
        if not self.count:
            self.line, self.reason = line, reason
        self.count += 1


@dataclass
class Commas:
    """Cells of a column by what a comma in them may be.

    Args:
        thousands: the first cell such as ``1,234``, which may be a number of thousands.
        line: its line.
        decimal: the first cell whose comma can only be a decimal one.
        whole: whether there is a whole number from 1 to 999 without a comma.
    """

    thousands: str = ""
    line: int = 0
    decimal: str = ""
    whole: bool = False

    def add(self, text: str, line: int) -> None:
        """Take a cell that is a number."""
        if "," not in text:
            self.whole = self.whole or bool(re.fullmatch(r"-?[1-9]\d{0,2}", text))
        elif not re.fullmatch(r"-?[1-9]\d{0,2},\d{3}", text):
            self.decimal = self.decimal or text
        elif not self.thousands:
            self.thousands, self.line = text, line


def numbers_of(cells: Sequence[str], line: Sequence[int], commas: Commas | None, bad: Bad) -> np.ndarray:
    """Return a column's numbers; what says that there is none, and what is none, becomes NaN.

    Args:
        cells: the cells.
        line: their lines.
        commas: takes what commas are in a table where they do not separate columns; None = a comma is an error.
        bad: takes cells that are no numbers.
    """
    before = bad.count
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.array([_number(cell, commas, at, bad) for cell, at in zip(cells, line, strict=True)])
    infinite = np.isinf(values)
    for place in np.flatnonzero(infinite).tolist():
        bad.add(line[place], f"{cells[place].strip()[:60]!r}, which is not finite")
    bad.of += int(np.isfinite(values).sum()) + bad.count - before
    return np.where(infinite, np.nan, values)


def _number(cell: str, commas: Commas | None, line: int, bad: Bad) -> float:
    text = cell.strip().lower()
    known = _WORDS.get(text.removeprefix("k4abt_joint_confidence_"))
    if known is not None:
        return known
    is_comma = commas is not None and text.count(",") == 1 and "." not in text
    try:
        value = float(text.replace(",", ".") if is_comma else text)
    except ValueError:
        thousands = re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d*)?|[-+]?\d{1,3}(?:\.\d{3})+,\d*", text)
        hint = "; write numbers without separators of thousands" if thousands else ""
        bad.add(line, f"{cell.strip()[:60]!r}, expected a number{hint}")
        return math.nan
    if commas is not None:
        commas.add(text, line)
    return value
