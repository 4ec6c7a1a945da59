"""``fastamr check FILE``: what is in a file, what is wrong with it, does it leak."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ..options import FLAG, CommandParser, add_reading, choice, reading

FOUND = 3
"""Exit status where something was found that ``--fail-on`` names."""


def run(words: list[str]) -> None:
    """Carry out the command."""
    from ...data import read
    from ...data.audit import KINDS, NearOptions, QualityOptions, audit, format_audit, format_page
    from ...files import check_writable, make_folder, write_text

    given = _parser(KINDS).parse(words)
    for path in (given.json, given.html):
        if path and path != "-":
            check_writable(path, given.file)
    near = NearOptions(max_shift=given.max_shift, residual=given.residual)
    quality = QualityOptions(jump=given.jump, freeze=given.freeze)
    data = read(given.file, **reading(given))
    data.verify()
    found = audit(data, near=near, search_near=given.near, quality=quality)
    report: dict[str, Any] = {"file": str(given.file)} | found
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


def _parser(kinds: dict[str, str]) -> CommandParser:
    parser = CommandParser(
        "check",
        "FILE",
        "Tell what is in a file, what is wrong with it and whether it leaks from training to test.",
        epilog="Kinds of findings: " + "; ".join(f"{kind}: {text}" for kind, text in kinds.items()) + ". "
        "The exit status is 0 whatever was found, and 3 where --fail-on names it.",
    )  # fmt: skip
    parser.add_argument(
        "file", metavar="FILE", help="the packed file, or any other that fastamr import reads"
    )
    add = parser.add_argument_group("report").add_argument
    add("--json", metavar="OUT", help="also write all numbers as JSON; - prints them instead of the table")
    add("--html", metavar="OUT", help="also write a page with histograms, which loads nothing from anywhere")
    add("--fail-on", **choice("kind", (*kinds, "any")), nargs="+", default=[],
        help="exit with status 3 where one of these is found: " + ", ".join([*kinds, "any"]))  # fmt: skip
    add = parser.add_argument_group("what counts as a finding").add_argument
    add("--near", action=FLAG, default=True, help="look for near copies too, not for exact ones only")
    add("--max-shift", type=int, default=5, metavar="FRAMES",
        help="near copies may start, and end, this many frames earlier or later")  # fmt: skip
    add("--residual", type=float, default=0.06, metavar="SHARE",
        help="near copies may differ by this share of their motion")  # fmt: skip
    add("--jump", type=float, default=1.0, metavar="SIZES",
        help="what moves farther than this many body sizes from one frame to the next jumps")  # fmt: skip
    add("--freeze", type=int, default=8, metavar="FRAMES",
        help="a joint in one place for so many frames while the body moves is frozen")  # fmt: skip
    add_reading(parser.more("how the file is read"))
    return parser
