"""``fastamr prepare``: convert a data set's raw files to one packed file.

Exit codes beside those of all commands: 3, the packed file is complete, but damaged raw files were left out.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from ..options import add_processing, add_reading, check_steps

DAMAGED = 3
"""The exit code where damaged files were left out."""

_SHOWN = 20

_EPILOG = """\
KIND and RAW:
{kinds}

Beside OUT lies OUT.report.json with every file and clip that was left out, and why. After an interruption the same
command continues. Exit code 3: done, but damaged files were left out.
"""


def run(arguments: list[str]) -> None:
    """Run the command.

    Raises:
        SystemExit: 3 where damaged files were left out; 2 for wrong options.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    check_steps(parser, given.steps)
    from ...data.prepare import prepare
    from ...data.preprocessing.presets import preset_steps
    from ...data.readers.registry import kinds

    if given.kind not in kinds():
        parser.error(f"KIND is {given.kind!r}, expected one of {', '.join(kinds())}")
    options = _options(parser, given)
    report = prepare(
        given.kind,
        given.raw,
        given.out,
        options=options,
        steps=[*preset_steps(given.preset), *given.steps],
        dtype=given.dtype,
        workers=given.workers or usable_cores(),
        strict=given.strict,
        progress=not given.no_progress,
    )
    _show(report, given.no_progress)
    if report.damaged:
        raise SystemExit(DAMAGED)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    from ...data.readers.registry import kinds

    indent = " " * 14
    lines = [
        textwrap.fill(f"  {name:<12}{text}", 112, subsequent_indent=indent) for name, text in kinds().items()
    ]
    parser = argparse.ArgumentParser(
        prog="fastamr prepare",
        description="Convert a data set's raw files to one packed file.",
        epilog=_EPILOG.format(kinds="\n".join(lines)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "kind", metavar="KIND", help="ntu60, ntu120, pku1, pku2, nw-ucla, pyskl, ..., see below"
    )
    parser.add_argument("raw", metavar="RAW", help="where the raw files are, see below")
    parser.add_argument("out", metavar="OUT", help="the packed file to write, for example ntu60.safetensors")
    add_processing(parser)
    add_reading(parser)
    parser.add_argument("--workers", type=int, default=0, help="processes that read (default: one a core)")
    parser.add_argument("--strict", action="store_true", help="stop at the first damaged file")
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    ntu = parser.add_argument_group("NTU RGB+D", "ntu60 and ntu120 only; the defaults are the field's recipe")
    ntu.add_argument(
        "--skip", metavar="FILE", help="text file that names clips to leave out, as the authors' list"
    )
    ntu.add_argument("--bodies", type=int, help="people to keep in a clip (default 2)")
    ntu.add_argument("--no-denoise", action="store_true", help="keep tracks that look like furniture")
    ntu.add_argument("--min-frames", type=int, help="shorter tracks are noise (default 12)")
    ntu.add_argument(
        "--spread", type=float, help="a frame is noisy where width > SPREAD x height (default 0.8)"
    )
    ntu.add_argument(
        "--spread-share", type=float, help="share of noisy frames of a noisy track (default 0.69754)"
    )
    ntu.add_argument(
        "--motion",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="motion of a second person in m² (default any)",
    )
    ntu.add_argument(
        "--no-join", action="store_true", help="do not join tracks that follow one another in time"
    )
    ntu.add_argument(
        "--min-state",
        type=int,
        choices=(0, 1, 2),
        help="mark joints with a lower tracking state as not seen (default 0)",
    )
    pku = parser.add_argument_group("PKU-MMD", "pku1 and pku2 only")
    pku.add_argument(
        "--keep", choices=("clips", "streams", "both"), help="labelled clips (default), streams or both"
    )
    return parser


def _options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the reader; those of another kind are a usage error."""
    choice = {
        "bodies": given.bodies,
        "denoise": False if given.no_denoise else None,
        "min_frames": given.min_frames,
        "spread": given.spread,
        "spread_share": given.spread_share,
        "motion": None if given.motion is None else tuple(given.motion),
        "join": False if given.no_join else None,
    }
    choice = {name: value for name, value in choice.items() if value is not None}
    ntu = {"skip": given.skip, "choice": choice or None, "min_state": given.min_state}
    ntu = {name: value for name, value in ntu.items() if value is not None}
    pku = {} if given.keep is None else {"keep": given.keep}
    for options, kinds, names in ((ntu, "ntu", "--skip, --bodies, ..."), (pku, "pku", "--keep")):
        if options and not given.kind.startswith(kinds):
            parser.error(f"{names} are options of {kinds}..., but KIND is {given.kind!r}")
    if choice:
        from ...data.prepare import BodyChoice

        try:
            ntu["choice"] = BodyChoice(**choice)
        except ValueError as error:
            parser.error(str(error))
    if given.skip is not None:
        ntu["skip"] = _skip(given.skip)
    reading = {"layout": given.layout, "min_confidence": given.min_confidence}
    return ntu | pku | {name: value for name, value in reading.items() if value is not None}


def _skip(path: str) -> frozenset[str]:
    from ...data.readers.common.ntu_protocols import clip_names

    names = clip_names(Path(path).read_text(encoding="utf-8", errors="replace"))
    if not names:
        raise ValueError(f"--skip {path} names no clip, expected names such as S001C002P005R002A008")
    return names


def _show(report: Any, damage: bool) -> None:
    """Print what came of it; damaged files only where the progress bar did not."""
    for item in report.damaged[:_SHOWN] if damage else ():
        print(f"left out: {item}", file=sys.stderr)
    if damage and len(report.damaged) > _SHOWN:
        print(f"left out: {len(report.damaged) - _SHOWN} more, see {report.path}", file=sys.stderr)
    summary = dict(report.summary)
    reasons: dict[str, int] = {}
    for reason in summary.pop("dropped_clips", {}).values():
        reasons[reason] = reasons.get(reason, 0) + 1
    summary["dropped_clips"] = reasons
    print(type(report.summary)(summary))
    for note in report.notes[:_SHOWN]:
        print(f"note: {note}")
    speed = "" if math.isclose(report.files_per_second, 0) else f", {report.files_per_second:g} files/s"
    print(
        f"{report.files} files in {report.seconds:.1f} s{speed}; damaged and left out: {len(report.damaged)}, of "
        f"another data set: {len(report.left_out)}; details: {report.path}"
    )
