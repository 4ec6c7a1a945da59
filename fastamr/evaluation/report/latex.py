"""Tables in LaTeX: what a document takes in as it is, with the package booktabs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ...documents import printable
from ...tables import mean_text
from .comparison import AS_PUBLISHED, MEASURED, Cell, Group, Row, number_sources
from .table import title

_HEAD = r"% \usepackage{booktabs}"
_ACCENTS = r"% \usepackage[T1]{fontenc}"
# pdfLaTeX's own letters go up to the end of Latin Extended-A.
_LAST_LETTER = "\u017f"
_OTHER_LETTERS = (
    "% some names hold letters that pdfLaTeX lacks: compile with LuaLaTeX, and a font that has them"
)
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {letter: f"\\{letter}" for letter in "&%$#_{}"}


def format_latex(groups: Sequence[Group]) -> str:
    """Return a LaTeX ``table`` for each group; a rule parts measured from published rows.

    The best measured value of each column is bold, and so is one that reads the same; a column of a single value has
    none. Each table has a label ``tab:DATA-SPLIT-PROTOCOL``.
    """
    sources, labels = number_sources(groups), set[str]()
    tables = [_table(group, sources, _label(group, labels)) for group in groups]
    text = "\n\n".join(tables)
    head = [_HEAD, *[_ACCENTS] * (not text.isascii())]
    head += [_OTHER_LETTERS] * any(letter > _LAST_LETTER for letter in text)
    return "\n".join(head) + "\n" + text + "\n"


def _table(group: Group, sources: dict[str, int], label: str) -> str:
    best = {name: _best(group.rows, name) for name in group.columns}
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{ll{'r' * len(group.columns)}l}}",
        r"\toprule",
    ]
    lines += [_line(map(_escaped, ("method", "run", *map(title, group.columns), "numbers"))), r"\midrule"]
    for row in group.rows:
        values = [_value(row.cells.get(name), best[name]) for name in group.columns]
        lines.append(_line([_escaped(row.label), _escaped(row.run), *values, MEASURED]))
    if group.published:
        lines.append(r"\midrule")
    for row in group.published:
        values = [_value(row.cells.get(name), None) for name in group.columns]
        number = f"{AS_PUBLISHED} [{sources[row.source]}]"
        lines.append(_line([_escaped(row.method), "", *values, number]))
    shown = {row.source: sources[row.source] for row in group.published}
    caption = f"{group.heading}; percent, mean ± standard deviation over the seeds."
    if any(best.values()):
        caption += " Bold: the best measured one."
    caption += "".join(f" [{number}] {source}." for source, number in shown.items())
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_escaped(caption)}}}", rf"\label{{{label}}}"]
    return "\n".join([*lines, r"\end{table}"])


def _best(rows: Sequence[Row], name: str) -> str | None:
    """Return the highest mean of a column as it reads; None where there are no two values to compare."""
    means = [cell.mean for row in rows if (cell := row.cells.get(name)) is not None]
    return mean_text([max(means)]) if len(means) > 1 else None


def _value(cell: Cell | None, best: str | None) -> str:
    if cell is None:
        return "-"
    text = _escaped(str(cell))
    return rf"\textbf{{{text}}}" if mean_text([cell.mean]) == best else text


def _line(cells: Sequence[str] | map[str]) -> str:
    """Return a line of a table. What begins with a bracket or a star would be an option of the line before."""
    text = " & ".join(cells)
    return ("{}" if text[:1] in ("[", "*") else "") + text + r" \\"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in printable(text))


def _label(group: Group, taken: set[str]) -> str:
    """Return a label of letters, digits and dashes that no other table has."""
    plain = unicodedata.normalize("NFKD", f"{group.data}-{group.split}-{group.protocol}")
    name = "tab:" + (re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "results")
    label, number = name, 1
    while label in taken:
        number += 1
        label = f"{name}-{number}"
    taken.add(label)
    return label
