"""The audit as one HTML page with bars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...pages import Part, Table, Text, render_page
from .sections import Section, sections


def format_page(report: dict[str, Any], title: str) -> str:
    """Return the whole page.

    Args:
        report: what :func:`~fastamr.data.audit.audit` returns.
        title: its heading, for example the file's name.
    """
    facts, *rest, duplicates, findings = sections(report)
    found = [facts, findings, duplicates, *rest, *_details(report)]
    return render_page(title, [_part(section) for section in found])


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


def _part(section: Section) -> Part:
    """A section as a part of the page; one that says nothing has no block."""
    title = section.title[:1].upper() + section.title[1:]
    if not (section.rows or section.intro):
        return Part(title, [])
    blocks: list[Table | Text] = [Text(line) for line in section.intro.split("\n") if line]
    if section.rows:
        blocks.append(
            Table(section.rows, left=section.left, numbers=section.numbers, has_head=section.has_head)
        )
    return Part(title, [*blocks, *map(Text, section.notes)])
