"""Numbers as text: columns for a terminal, tables in markdown, mean and deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from html import escape

from .documents import printable


def aligned(rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Return rows as columns two spaces apart, without spaces at the ends of lines.

    Args:
        rows: cells, as many in each row.
        left: places of the columns that begin at the left, -1 for the last one; the others end at the right.
    """
    lines = [[printable(cell) for cell in row] for row in rows]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lefts = {place % len(columns) for place in left} if columns else set()
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place in lefts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Return rows as a markdown table, the first of them its head; see :func:`aligned`."""
    head, *body = [[escape(printable(cell), quote=False).replace("|", r"\|") for cell in row] for row in rows]
    lefts = {place % len(head) for place in left}
    rule = ["---" if place in lefts else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def figure(value: float) -> str:
    """Return a number with three digits that count, above a hundred without a fraction: ``0.0512``, ``51,200``."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times_text(value: float) -> str:
    """Return a ratio as ``0.96x``, ``9.45x``, ``36.4x``."""
    return f"{value:.2f}x" if abs(value) < 10 else f"{value:,.1f}x"


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of the seeds' values (with n - 1); None for a single one."""
    return statistics.stdev(values) if len(values) > 1 else None


def mean_text(values: Sequence[float], sign: str = "±") -> str:
    """Return the mean and, of several values, their deviation, with one decimal: ``44.1 ± 0.5``."""
    spread = deviation(values)
    return f"{statistics.fmean(values):.1f}" + ("" if spread is None else f" {sign} {spread:.1f}")
