#!/usr/bin/env python
"""Write the measured parts of README.md, and its picture of the ladder, from the files in docs/measured.

    fastamr demo --out demo && cp demo/demo.json docs/measured/demo.json
    fastamr bench ladder --out ladder && cp ladder/ladder.json docs/measured/ladder.json
    python tools/front_page.py

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`; tests/docs/test_front_page.py compares it with its file.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [entry for entry in [str(ROOT)] if entry not in sys.path]

from fastamr import demo  # noqa: E402
from fastamr.benchmarking.charts import draw_ladder  # noqa: E402
from fastamr.benchmarking.ladder_report import conditions  # noqa: E402
from fastamr.benchmarking.rungs import Ladder, Row  # noqa: E402
from fastamr.files import write_text  # noqa: E402
from fastamr.tables import markdown, times_text  # noqa: E402

README = ROOT / "README.md"
MEASURED = ROOT / "docs" / "measured"
PICTURE = ROOT / "docs" / "images" / "ladder.svg"


def measured(name: str) -> dict[str, Any]:
    """Return the content of a file in docs/measured."""
    content: dict[str, Any] = json.loads((MEASURED / f"{name}.json").read_text(encoding="utf-8"))
    return content


def ladder_of(content: dict[str, Any]) -> Ladder:
    """Return the ladder of a result file."""
    rows = [Row(**row) for row in content["rows"]]
    return Ladder(
        content["environment"], content["sequences"], content["clip_shape"], content["architecture"], rows
    )


def shown(ladder: Ladder) -> list[tuple[str, Row]]:
    """Return the rows of the README's table: the released code, and the fastest of each model and kind."""

    def fastest(model: str, fast: bool) -> Row:
        rows = [row for row in ladder.rows if row.ms is not None and (row.model, row.fast) == (model, fast)]
        return min(rows, key=lambda row: row.ms or 0.0)

    return [
        ("SkeletonMAE as in the public code", next(row for row in ladder.rows if row.name == "mae-fp32")),
        ("SkeletonMAE, fastest form in plain PyTorch", fastest("skeleton_mae", False)),
        ("SkeletonMAE by fastamr", fastest("skeleton_mae", True)),
        ("AMR, fastest form in plain PyTorch", fastest("amr", False)),
        ("**AMR by fastamr**", fastest("amr", True)),
    ]


def ladder_part(content: dict[str, Any]) -> str:
    """The ladder in five rows, with its conditions."""
    ladder = ladder_of(content)
    rows = shown(ladder)
    base = rows[0][1].ms or 0.0
    cells = [["one pre-training step", "form", "milliseconds", "times as fast"]]
    for title, row in rows:
        cells.append([title, f"`{row.name}`", f"{row.ms or 0.0:,.0f}", times_text(base / (row.ms or base))])
    return f"{markdown(cells)}\n\nMeasured on: {conditions(ladder)}.\n"


def demo_part(content: dict[str, Any]) -> str:
    """What ``make demo`` printed last."""
    rows = [demo.Row(**row) for row in content["rows"]]
    config = demo.DemoConfig(**content["config"])
    steps = {name: value / 1e3 for name, value in content["step_ms"].items()}
    lines = [demo.format_table(rows), "", *content["reading"], *demo.describe_steps(steps, config)]
    where = f"{content['device_name']}, {content['date']}, torch {content['torch']}, {content['seconds']:.0f} s in all"
    return "\n".join(["```text", *lines, "```", "", f"Measured on: {where}.", ""])


PARTS = {"ladder": ladder_part, "demo": demo_part}


def part_of(page: str, name: str) -> str:
    """Return the part of a page, without its marks and the empty lines beside them.

    Raises:
        ValueError: the page has no such marks.
    """
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no part between '<!-- {name} -->' and '<!-- /{name} -->'")
    return found[1].strip("\n")


def main() -> int:
    """Write the parts and the picture."""
    page = README.read_text(encoding="utf-8")
    for name, make in PARTS.items():
        old = part_of(page, name)
        marks = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = page.split(marks[0], 1)
        after = rest.split(marks[1], 1)[1]
        new = make(measured(name)).strip("\n")
        page = f"{before}{marks[0]}\n{new}\n\n{marks[1]}{after}"
        print(f"{name}: {'as before' if new == old else 'written'}")
    write_text(README, page)
    draw_ladder(PICTURE, ladder_of(measured("ladder")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
