"""The audit as readable text."""

from __future__ import annotations

from typing import Any

from ...documents import printable, printable_lines
from ...tables import aligned
from .sections import Section, sections

_BAR = 30
_MOST_ROWS = 130
# Name, number and six splits fit a terminal.
_MOST_COLUMNS = 8


def format_audit(report: dict[str, Any], title: str = "") -> str:
    """Return what ``fastamr check`` prints.

    Args:
        report: what :func:`~fastamr.data.audit.audit` returns.
        title: the first line, for example the file's name.
    """
    *parts, findings = sections(report)
    found = aligned([("", *row) for row in findings.rows], left=(0, 1, 2))
    last = f"findings\n{found}" if found else f"findings: {findings.intro}"
    return "\n\n".join([*([printable(title)] if title else []), *map(_text, parts), last])


def _text(section: Section) -> str:
    rows = [list(row[:_MOST_COLUMNS]) for row in section.rows[: _MOST_ROWS + 1]]
    if section.title == "lengths":
        most = max(section.numbers)
        bars = ["", *("#" * -(-_BAR * number // most) for number in section.numbers)]
        rows = [[frames, bar, clips] for (frames, clips), bar in zip(rows, bars, strict=True)]
    hidden = len(section.rows) - 1 - _MOST_ROWS
    more = [f"... and {hidden} more (see --json)"] if hidden > 0 else []
    left = section.left if section.title != "lengths" else (1,)
    texts = [printable_lines(section.intro), aligned(rows, left=left), *more, *map(printable, section.notes)]
    return "\n".join(filter(None, texts))
