"""The README's figures are those of the result files beside it, and its pictures exist."""

from __future__ import annotations

import re

import pytest

from tools import front_page

from .pages import ROOT, read


@pytest.mark.parametrize("name", front_page.PARTS)
def test_a_part_is_what_its_file_says(name: str) -> None:
    made = front_page.PARTS[name](front_page.measured(name))
    assert front_page.part_of(read("README.md"), name) == made.strip("\n"), "python tools/front_page.py"


def test_the_tables_cells_by_hand() -> None:
    """Without the code that writes them: the released form's time, and AMR's, are in the file as they stand."""
    rows = {row["name"]: row["ms"] for row in front_page.measured("ladder")["rows"]}
    part = front_page.part_of(read("README.md"), "ladder")
    table = re.findall(r"^\| .*? \| `([\w-]+)` \| ([\d,]+) \| ([\d.]+)x \|$", part, re.MULTILINE)
    assert len(table) == 5
    for name, milliseconds, times in table:
        assert int(milliseconds.replace(",", "")) == round(rows[name])
        assert float(times) == pytest.approx(rows["mae-fp32"] / rows[name], abs=0.051)


def test_the_demonstrations_cells_by_hand() -> None:
    part = front_page.part_of(read("README.md"), "demo")
    for row in front_page.measured("demo")["rows"]:
        line = next(line for line in part.splitlines() if line.startswith(row["encoder"]))
        assert line[len(row["encoder"]) :].split()[:2] == [f"{row['knn']:.1f}", f"{row['linear']:.1f}"]


def test_nothing_measured_stands_outside_of_the_parts() -> None:
    page = read("README.md")
    for name in front_page.PARTS:
        page = page.replace(front_page.part_of(page, name), "")
    assert re.findall(r"[\d.,]+ ?(?:ms\b|x faster|sequences/s)|\b[\d.]+x\b", page) == []


def test_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", read("README.md"))
    assert len(pictures) == 2
    assert [name for name in pictures if not (ROOT / name).is_file()] == []


def test_a_page_without_its_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no part between '<!-- demo -->'"):
        front_page.part_of("nothing", "demo")


def test_the_page_is_short() -> None:
    """A reader with a minute: about 800 words beside what was measured."""
    page = read("README.md")
    for name in front_page.PARTS:
        page = page.replace(front_page.part_of(page, name), "")
    assert len(page.split()) < 1050
