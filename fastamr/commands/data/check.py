"""``fastamr check FILE``: what is in a file, what is wrong with it, does it leak."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..options import add_reading

FOUND = 3
"""Exit status where something was found that ``--fail-on`` names."""


def run(arguments: list[str]) -> None:
    """Carry out the command.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: a file cannot be written where ``--json`` or ``--html`` says.
        ValueError: no reader knows the file, it is damaged, or an option is out of range.
        SystemExit: with status 3, something was found that ``--fail-on`` names.
    """
    from ...data import read
    from ...data.audit import KINDS, NearOptions, QualityOptions, audit, format_audit, format_page
    from ...files import check_writable, make_folder, write_text

    given = _parser(KINDS).parse_args(arguments)
    for path in (given.json, given.html):
        if path and path != "-":
            check_writable(path)
    near = NearOptions(max_shift=given.max_shift, residual=given.residual)
    quality = QualityOptions(jump=given.jump, freeze=given.freeze)
    data = read(given.file, layout=given.layout, min_confidence=given.min_confidence)
    report: dict[str, Any] = {"file": str(given.file)} | audit(
        data, near=near, search_near=not given.no_near, quality=quality
    )
    if given.json == "-":
        print(json.dumps(report, indent=2))
    else:
        print(format_audit(report, str(given.file)))
        if given.json:
            write_text(make_folder(given.json), json.dumps(report, indent=2) + "\n")
    if given.html:
        write_text(make_folder(given.html), format_page(report, Path(given.file).name))
    wanted = set(KINDS) if "any" in given.fail_on else set(given.fail_on)
    kinds = sorted({finding["kind"] for finding in report["findings"]} & wanted)
    if kinds:
        print(f"found what --fail-on names: {', '.join(kinds)}", file=sys.stderr)
        raise SystemExit(FOUND)


def _parser(kinds: dict[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastamr check",
        description="Tell what is in a file, what is wrong with it and whether it leaks from training to test.",
        epilog="Kinds of findings: " + "; ".join(f"{kind}: {text}" for kind, text in kinds.items()) + ". "
        "The exit status is 0 whatever was found, and 3 where --fail-on names it.",
        allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("file", metavar="FILE", help="the packed file, or any other that fastamr import reads")
    add("--json", metavar="OUT", help="also write all numbers as JSON; - prints them instead of the table")
    add("--html", metavar="OUT", help="also write a page with histograms, which loads nothing from anywhere")
    add("--fail-on", metavar="KIND", nargs="+", default=[], choices=[*kinds, "any"],
        help="exit with status 3 where one of these is found: " + ", ".join([*kinds, "any"]))  # fmt: skip
    add("--no-near", action="store_true", help="look for exact duplicates only")
    add("--max-shift", type=int, default=5, metavar="FRAMES",
        help="near copies may start, and end, this many frames earlier or later (default 5)")  # fmt: skip
    add("--residual", type=float, default=0.06, metavar="SHARE",
        help="near copies may differ by this share of their motion (default 0.06)")  # fmt: skip
    add("--jump", type=float, default=1.0, metavar="SIZES",
        help="what moves farther than this many body sizes from one frame to the next jumps (default 1)")  # fmt: skip
    add("--freeze", type=int, default=8, metavar="FRAMES",
        help="a joint in one place for so many frames while the body moves is frozen (default 8)")  # fmt: skip
    add_reading(parser)
    return parser
