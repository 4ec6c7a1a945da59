"""The audit as one HTML page with bars; it loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from string import Template
from typing import Any

from ...documents import printable, printable_lines
from .sections import Section, sections

_PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc }
h2::first-letter { text-transform: uppercase } p { white-space: pre-line }
table { border-collapse: collapse; margin: .6rem 0 } td, th { padding: .15rem .7rem; text-align: right }
tr + tr { border-top: 1px solid #e4e4e4 } th { font-weight: 600; background: #f3f3f3 }
.left { text-align: left; overflow-wrap: break-word } .bar { width: 20rem; padding: 0 }
.bar div { background: #3b6ea5; height: 1rem }
</style></head><body>
<h1>$title</h1>
$sections
</body></html>
""")


def format_page(report: dict[str, Any], title: str) -> str:
    """Return the whole page.

    Args:
        report: what :func:`~fastamr.data.audit.audit` returns.
        title: its heading, for example the file's name.
    """
    facts, *rest, duplicates, findings = sections(report)
    parts = [facts, findings, duplicates, *rest, *_details(report)]
    return _PAGE.substitute(title=_shown(title), sections="\n".join(map(_html, parts)))


def _details(report: dict[str, Any]) -> Iterator[Section]:
    """What only the page has room for."""
    quality = report["quality"]
    for key, what in (("joint_jumps", "jumps of single joints"), ("freezes", "frozen frames")):
        yield _bars(f"{what} by joint", quality[key]["by_joint"])
    jumps = [
        [jump["clip"], str(jump["frame"]), jump["joint"], f"{jump['body_sizes']:.2f}"]
        for jump in quality["farthest_jumps"]
    ]
    yield Section("farthest jumps", rows=[["clip", "frame", "joint", "body sizes"], *jumps] if jumps else ())
    for name, split in report["duplicates"]["splits"].items():
        yield _bars(f"leaked test clips of split {name} by class", split["by_class"])


def _bars(title: str, numbers: dict[str, int]) -> Section:
    """A section of numbers by name; an empty one where all are 0."""
    rows = [[name, f"{number:,}"] for name, number in numbers.items()]
    any_at_all = any(numbers.values())
    return Section(title, rows=rows if any_at_all else (), numbers=list(numbers.values()), has_head=False)


def _html(section: Section) -> str:
    if not (section.rows or section.intro):
        return ""
    heading = f"<h2>{_shown(section.title)}</h2>" if section.title else ""
    lines_of_text = (printable_lines(section.intro), *map(printable, section.notes))
    texts = [f"<p>{escape(text)}</p>" if text else "" for text in lines_of_text]
    bars = [f"{100 * number / max(max(section.numbers), 1):.1f}" for number in section.numbers]
    if section.has_head and section.numbers:
        bars.insert(0, "")
    lines = []
    for place, row in enumerate(section.rows):
        kind = "th" if section.has_head and place == 0 else "td"
        lefts = {column % len(row) for column in section.left}
        cells = [
            f"<{kind}{' class=left' if column in lefts else ''}>{_shown(cell)}</{kind}>"
            for column, cell in enumerate(row)
        ]
        if bars:
            drawn = f'<div style="width: {bars[place]}%"></div>' if bars[place] else ""
            cells.insert(2, f"<{kind} class=bar>{drawn}</{kind}>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    table = f"<table>{''.join(lines)}</table>" if lines else ""
    return "".join([heading, texts[0], table, *texts[1:]])


def _shown(text: str) -> str:
    """Return a text as HTML: neither tags nor control characters of its own."""
    return escape(printable(text))
