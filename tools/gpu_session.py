#!/usr/bin/env python
"""Ask a GPU everything that matters within fifteen minutes, whatever fails on the way.

    python tools/gpu_session.py --out DIR              every part, most important first, within 540 seconds
    python tools/gpu_session.py --plan                 the parts with their time limits; runs nothing
    python tools/gpu_session.py --out DIR --only gate1 steps
    python tools/gpu_session.py --out DIR --device cpu --small     the same parts, tiny, without a GPU
    python tools/gpu_session.py --out DIR --rehearse   parts that hang, crash and lie, in place of the real ones

Each part is a process of its own under a time limit. Each result is one line of JSON in DIR/results.jsonl and on
standard output as it comes; DIR/summary.txt is written anew after each part; what else a part prints is in
DIR/PART.log. The exit status is 0 whatever a part does. Needs Python's standard library only; the parts need torch.
docs/gpu_session.md says how to read the results.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.session_driver.processes import GRACE, Part, end_processes, run_part, start, watched  # noqa: E402
from tools.session_driver.results import Outcome, Session, printable  # noqa: E402

# Seconds: the least that a part is started with, and how long before its limit a part should end by itself.
_LEAST, _MARGIN = 3.0, 1.5

REAL = (
    Part("machine", 25, "versions, clocks, copy rate, a large product, the cost of a graph of 200 nodes"),
    Part("warmup", 40, "compiles the kernels in several processes into one cache"),
    Part("gate1", 60, "each op and back end against float64 at the paper's shapes"),
    Part("gate2", 50, "one update against float64; 20 updates eager against recorded; graph=True"),
    Part("steps", 80, "the update with every choice: attention, side branch, weight gradients, products"),
    Part("profile", 30, "the kernels of the default update and of the fastest"),
    Part("products", 90, "each product: the library against every tile of the kernels, in a graph"),
    Part("attention", 25, "the own attention against cuDNN, flash and the other forms of SDPA"),
    Part("tune", 80, "what fastamr tune does, where this checkout has it", tuned=True),
    Part("again", 25, "the default update once more, after tuning", tuned=True),
    Part("tests", 600, "pytest -m gpu, file by file, as long as time is left"),
)
BUILD = Part("build", 540, "compiles the CUDA attention, beside the other parts")

_REHEARSED = (
    ("gate", 10.0), ("lies", 10.0), ("hangs", 2.0), ("measures", 10.0), ("crashes", 10.0), ("shouts", 20.0),
    ("floods", 2.0), ("lingers", 10.0), ("silent", 10.0), ("last", 10.0),
)  # fmt: skip
REHEARSED = tuple(
    Part(name, seconds, "rehearsal", (str(ROOT / "tools" / "session_driver" / "rehearsal.py"), name))
    for name, seconds in _REHEARSED
)


class Stopped(BaseException):
    """A signal asks for the end."""


class Background:
    """Compiles the CUDA attention beside the first parts; it is there when a later part looks for it."""

    def __init__(self, command: list[str], session: Session) -> None:
        self._session, self._began, self._said = session, time.monotonic(), False
        self._mark = session.mark_of("build")
        self._log = (session.out / "build.log").open("wb")
        self._process = start(command, self._mark, self._log)

    def look(self, *, end: bool = False) -> None:
        """Say once that it has ended; with ``end``, end it."""
        code = self._process.poll()
        if self._said or (code is None and not end):
            return
        self._said = True
        end_processes(self._process, self._mark)
        self._log.close()
        status = "over" if code is None else "failed" if code else "ok"
        why = "see build.log" if status == "failed" else "the session ended first" if status == "over" else ""
        self._session.close(Outcome("build", status, time.monotonic() - self._began, why=why))


def run(given: argparse.Namespace, parts: list[Part], session: Session) -> None:
    """Run the parts until time is up."""
    end = session.began + given.seconds
    background = None
    if given.device == "cuda" and not given.rehearse:
        with contextlib.suppress(OSError):
            background = Background(command_of(BUILD, given, given.seconds), session)
    try:
        for part in parts:
            limit = min(part.seconds, end - time.monotonic() - GRACE)
            if limit < min(_LEAST, part.seconds):
                session.close(Outcome(part.name, "skipped", why="no time was left"))
                continue
            session.close(run_part(part, command_of(part, given, limit), limit, session))
            if background is not None:
                background.look()
    finally:
        if background is not None:
            background.look(end=True)


def command_of(part: Part, given: argparse.Namespace, limit: float) -> list[str]:
    """What runs a part."""
    if part.command:
        return [sys.executable, *part.command]
    seconds = max(limit - _MARGIN, limit / 2)
    options = ["--device", given.device, "--out", str(given.out), "--seconds", f"{seconds:.1f}"]
    small = ["--small"] if given.small else []
    return [sys.executable, "-m", "tools.session_parts", part.name, *options, *small]


@contextlib.contextmanager
def answering_signals() -> Iterator[None]:
    """A signal ends the session in order: its processes, its summary."""

    def stop(number: int, frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # a second one would cut the end short
        raise Stopped(signal.Signals(number).name)

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, stop)
    yield


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the results; those of an earlier session are kept"
    )
    parser.add_argument("--seconds", type=float, default=540.0, help="of the whole session; 540 by default")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", help="these parts, in the order of --plan; they share the time"
    )
    parser.add_argument("--plan", action="store_true", help="print the parts with their limits, run nothing")
    parser.add_argument("--rehearse", action="store_true", help="run parts that hang, crash and lie")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the parts out")
    given = parser.parse_args(words)
    known = [part.name for part in (REHEARSED if given.rehearse else REAL)]
    for name in given.only or []:
        if name not in known:
            parser.error(f"--only {name}: no such part; expected some of {' '.join(known)}")
    if not 0 < given.seconds < math.inf:
        parser.error(f"--seconds {given.seconds}: expected a positive number")
    if given.out is None and not given.plan:
        parser.error("--out is missing: name the folder for the results")
    return given


def chosen(given: argparse.Namespace) -> list[Part]:
    """The parts that are asked for; those that are named share the time that the others do not need."""
    parts = [
        part
        for part in (REHEARSED if given.rehearse else REAL)
        if given.only is None or part.name in given.only
    ]
    if given.only is None or given.rehearse:
        return parts
    stretch = max(1.0, given.seconds / sum(part.seconds for part in parts))
    return [dataclasses.replace(part, seconds=part.seconds * stretch) for part in parts]


def main(words: list[str] | None = None) -> int:
    """Run the session; 0 whatever its parts do, 2 for a wrong command line."""
    given = parse(words)
    parts = chosen(given)
    if given.plan:
        for part in parts:
            print(f"{part.name:12} {part.seconds:4.0f} s  {part.what}")
        return 0
    given.out = given.out.resolve()
    session = Session(given.out)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        with watched(session.mark), answering_signals():
            session.emit("session", {"parts": [part.name for part in parts], "seconds": given.seconds})
            run(given, parts, session)
    except Stopped as stop:
        session.close(
            Outcome("session", "stopped", time.monotonic() - session.began, given.seconds, why=str(stop))
        )
    except Exception as error:
        why = printable(f"{type(error).__name__}: {error}")
        session.close(Outcome("session", "failed", time.monotonic() - session.began, given.seconds, why=why))
    with contextlib.suppress(OSError, ValueError):
        print(session.summary(), flush=True)
    return 0


if __name__ == "__main__":
    status = main()
    # Nothing that could fail may come after: a reader that went away is no failure of the session.
    os._exit(status)
