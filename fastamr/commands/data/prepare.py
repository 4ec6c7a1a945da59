"""``fastamr prepare``: convert a data set's raw files to one packed file.

Exit codes beside those of all commands: 3, the packed file is complete, but damaged raw files were left out.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import textwrap
from pathlib import Path
from typing import Any

from ...documents import printable
from ...errors import UsageError
from ...host import allowed_cpus
from ..options import FLAG, CommandParser, Given, add_processing, add_reading, choice, reading

DAMAGED = 3
"""The exit code where damaged files were left out."""

_SHOWN = 20
KEEP = ("clips", "streams", "both")

_EPILOG = """\
KIND and RAW:
{kinds}

Beside OUT lies OUT.report.json with every file and clip that was left out, and why. After an interruption the same \
command continues. Exit code 3: done, but damaged files were left out.
"""


def run(words: list[str]) -> None:
    """Carry out the command."""
    given = _parser().parse(words)
    from ...data.prepare import prepare
    from ...data.preprocessing.presets import preset_steps
    from ...data.readers.registry import kinds

    if given.kind not in kinds():
        raise UsageError(f"KIND is {given.kind!r}, expected one of {', '.join(kinds())}")
    options = _options(given)
    report = prepare(
        given.kind,
        given.raw,
        given.out,
        options=options,
        steps=[*preset_steps(given.preset), *given.preprocess],
        dtype=given.dtype,
        workers=given.workers or allowed_cpus(),
        strict=given.strict,
        progress=given.progress,
    )
    _show(report, not given.progress)
    if report.damaged:
        raise SystemExit(DAMAGED)


def _parser() -> CommandParser:
    from ...data.prepare import BodyChoice
    from ...data.readers.registry import kinds

    lines = [
        textwrap.fill(f"  {name:<12}{text}", 78, subsequent_indent=" " * 14) for name, text in kinds().items()
    ]
    text = "Convert a data set's raw files to one packed file."
    epilog = _EPILOG.format(kinds="\n".join(lines))
    parser = CommandParser("prepare", "KIND RAW OUT", text, epilog=epilog)
    add = parser.add_argument
    add("kind", metavar="KIND", help="ntu60, ntu120, pku1, pku2, nw-ucla, pyskl, ...; --help-all lists them")
    add("raw", metavar="RAW", help="where the raw files are: a folder, archives or a file")
    add("out", metavar="OUT", help="the packed file to write, for example ntu60.safetensors")
    add_processing(parser)
    add = parser.add_argument_group("work").add_argument
    add(
        "--workers",
        type=int,
        default=0,
        help="processes that read; by default one for each CPU that may be used",
    )
    add("--strict", action=FLAG, help="stop at the first damaged file")
    add("--progress", action=FLAG, default=True, help="show the progress bar")
    parser.add_fields(BodyChoice, {}, rest="NTU RGB+D: choice of people; the defaults are the field's recipe")
    add_reading(parser.more("reading"), rate=False)
    add = parser.more("NTU RGB+D: clips and joints").add_argument
    add("--skip", metavar="FILE", help="text file that names clips to leave out, as the authors' list")
    add("--min-state", type=int, choices=(0, 1, 2),
        help="mark joints with a lower tracking state, of 0, 1 and 2, as not seen; by default none")  # fmt: skip
    add = parser.more("PKU-MMD").add_argument
    add("--keep", **choice("keep", KEEP), help="labelled clips (default), streams or both")
    return parser


def _options(given: Given) -> dict[str, Any]:
    """Return the options of the reader; those of another kind are a usage error."""
    from ...data.prepare import BodyChoice

    names = [item.name for item in dataclasses.fields(BodyChoice)]
    bodies = {name: value for name, value in given.as_dict().items() if name in names}
    ntu = {"skip": given.skip, "choice": bodies or None, "min_state": given.min_state}
    ntu = {name: value for name, value in ntu.items() if value is not None}
    pku = {} if given.keep is None else {"keep": given.keep}
    for options, kinds, shown in ((ntu, "ntu", "--skip, --bodies, ..."), (pku, "pku", "--keep")):
        if options and not given.kind.startswith(kinds):
            raise UsageError(f"{shown} are options of {kinds}..., but KIND is {given.kind!r}")
    if bodies:
        if "motion" in bodies:
            bodies["motion"] = tuple(bodies["motion"])
        try:
            ntu["choice"] = BodyChoice(**bodies)
        except ValueError as error:
            raise UsageError(str(error)) from None
    if given.skip is not None:
        ntu["skip"] = _skip(given.skip)
    asked = reading(given, rate=False)
    return ntu | pku | {name: value for name, value in asked.items() if value is not None}


def _skip(path: str) -> frozenset[str]:
    from ...data.readers.common.ntu_protocols import clip_names
    from ...data.readers.common.sources import whole_file

    names = clip_names(whole_file(Path(path)).decode("utf-8", "replace"))
    if not names:
        raise ValueError(f"--skip {path} names no clip, expected names such as S001C002P005R002A008")
    return names


def _show(report: Any, damage: bool) -> None:
    """Print what came of it; damaged files only where the progress bar did not."""
    for item in report.damaged[:_SHOWN] if damage else ():
        print(printable(f"left out: {item}"), file=sys.stderr)
    if damage and len(report.damaged) > _SHOWN:
        print(f"left out: {len(report.damaged) - _SHOWN} more, see {report.path}", file=sys.stderr)
    summary = dict(report.summary)
    reasons: dict[str, int] = {}
    for reason in summary.pop("dropped_clips", {}).values():
        reasons[reason] = reasons.get(reason, 0) + 1
    summary["dropped_clips"] = reasons
    print(type(report.summary)(summary))
    for note in report.notes[:_SHOWN]:
        print(printable(f"note: {note}"))
    speed = "" if math.isclose(report.files_per_second, 0) else f", {report.files_per_second:g} files/s"
    print(
        f"{report.files} files in {report.seconds:.1f} s{speed}; damaged and left out: {len(report.damaged)}, of "
        f"another data set: {len(report.left_out)}; details: {report.path}"
    )
