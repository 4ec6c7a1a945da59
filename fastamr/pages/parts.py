"""What a page is made of: parts with a heading, and in them texts, tables and charts; all of it plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Mark = Literal["", "worse", "better", "strong"]


@dataclass(frozen=True)
class Cell:
    """A cell of a table that says more than its text.

    Attributes:
        text: of the cell.
        mark: how it is set off: ``worse`` and ``better`` in colour, ``strong`` in bold.
    """

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        rows: as many cells in each; the first row is the head unless ``has_head`` is False.
        left: columns that begin at the left, -1 for the last one; the others end at the right.
        numbers: one for each row below the head, drawn as bars in the third column; none without a drawing.
        has_head: whether the first row names the columns.
        title: a line above the table, or "".
        folded: show the title alone until the reader opens it.
    """

    rows: Sequence[Sequence[str | Cell]]
    left: tuple[int, ...] = (0,)
    numbers: Sequence[float] = ()
    has_head: bool = True
    title: str = ""
    folded: bool = False
    kind: str = "table"

    @property
    def lefts(self) -> set[int]:
        """The columns that begin at the left, from 0."""
        return {column % len(row) for row in self.rows[:1] for column in self.left}

    @property
    def lines(self) -> list[list[Cell]]:
        """The rows, each text as a cell."""
        return [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in self.rows]

    def bar(self, row: int) -> str | None:
        """Return the width of a row's bar in percent; "" in the head, None in a table without bars."""
        if not self.numbers:
            return None
        place = row - self.has_head
        return "" if place < 0 else f"{100 * self.numbers[place] / max(*self.numbers, 1e-300):.1f}"


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: of the paragraph.
        mark: ``warning`` sets it off.
    """

    text: str
    mark: Literal["", "warning"] = ""
    kind: str = "text"


class Key(NamedTuple):
    """What a curve or a mark of a chart stands for.

    Attributes:
        name: what it is called.
        sample: a drawing of it, SVG that this package has made.
    """

    name: str
    sample: str


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        title: a line above it.
        svg: the drawing, of :func:`fastamr.pages.svg.inline_svg`.
        keys: what its curves stand for.
        note: a line below it, or "".
        about: what a reader who cannot see it is told.
        wide: it takes the whole width of a wide screen, where two others stand side by side.
    """

    title: str
    svg: str
    keys: Sequence[Key] = ()
    note: str = ""
    about: str = ""
    wide: bool = False
    kind: str = "chart"


@dataclass(frozen=True)
class Part:
    """A part of a page.

    Attributes:
        title: its heading; "" has none.
        blocks: what is in it.
    """

    title: str
    blocks: Sequence[Table | Text | Chart]
