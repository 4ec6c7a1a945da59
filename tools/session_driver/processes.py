"""Runs a part as a process of its own under a time limit, and leaves nothing of it behind."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .results import MOST_RESULTS, Lines, Log, Outcome, Session, printable, read_result
from .watchdog import VARIABLE, end_marked

ROOT = Path(__file__).resolve().parents[2]
# Seconds: between two looks at a part, and for what it wrote last.
_PULSE, GRACE = 0.1, 1.0


@dataclass(frozen=True)
class Part:
    """One part of a session.

    Attributes:
        name: of the part.
        seconds: its limit.
        what: what it finds out.
        command: what runs it; empty for a real part.
        tuned: what ``fastamr tune`` found counts; elsewhere it does not, so that sessions can be compared.
    """

    name: str
    seconds: float
    what: str
    command: tuple[str, ...] = ()
    tuned: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """Variables for its process."""
        return {} if self.tuned else {"FASTAMR_TUNING": "off"}


def run_part(part: Part, command: list[str], limit: float, session: Session) -> Outcome:
    """Run a part, keep its results, and end all its processes after at most ``limit`` seconds."""
    outcome = Outcome(part.name, "ok", limit=limit)
    session.texts[part.name] = []
    unreadable, gates = 0, dict(session.gates)
    began = time.monotonic()
    with Log(session.out / f"{part.name}.log") as log:

        def result(line: bytes, cut: bool) -> None:
            nonlocal unreadable
            if not cut and line.startswith(b"{"):
                try:
                    return session.take(part.name, read_result(line), outcome)
                except ValueError:
                    pass
            # Libraries print; but what begins as a result and is none was meant to be one.
            unreadable += line.startswith(b"{")
            return log.write(line)

        last = b""

        def complaint(line: bytes, cut: bool) -> None:
            nonlocal last
            last = line
            log.write(line)

        mark = session.mark_of(part.name)
        try:
            process = start(command, mark, more=part.environment)
        except OSError as error:
            outcome.status, outcome.why = "failed", f"it did not start: {error}"
            return outcome
        try:
            ended = _follow(process, began + limit, Lines(result), Lines(complaint))
        finally:
            # Before the process is waited for: its number must still be its own.
            end_processes(process, mark)
    outcome.seconds = time.monotonic() - began
    _judge(outcome, process.returncode if ended else None, unreadable, last)
    if not ended or process.returncode:
        session.distrust(gates, ended=ended)
    return outcome


def _judge(outcome: Outcome, code: int | None, unreadable: int, last: bytes) -> None:
    """What a part says of itself does not count; how it ended does."""
    reasons = []
    if code is None:
        outcome.status = "over"
        reasons.append("ended at its time limit")
    elif code < 0:
        with contextlib.suppress(ValueError):
            reasons.append(f"died of {signal.Signals(-code).name}")
    elif code:
        said = printable(last.decode("utf-8", "replace"))[:200]
        reasons.append(f"exit status {code}{f': {said}' if said else ''}")
    elif not outcome.results:
        reasons.append("no result")
    if unreadable:
        reasons.append(f"{unreadable} unreadable lines, see {outcome.part}.log")
    if outcome.results > MOST_RESULTS:
        reasons.append(f"only the first {MOST_RESULTS} results are kept")
    if reasons and outcome.status == "ok":
        outcome.status = "failed"
    outcome.why = "; ".join(reasons)


def start(
    command: list[str],
    mark: str,
    output: int | IO[bytes] = subprocess.PIPE,
    more: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command of this checkout in a session of its own; it and what it starts carry the mark.

    Args:
        command: the command.
        mark: of its processes, see ``watchdog``.
        output: where both its streams go.
        more: variables for its environment.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", VARIABLE: mark}
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    return subprocess.Popen(  # type: ignore[call-overload]
        command, cwd=ROOT, env=os.environ | own | (more or {}), start_new_session=True, bufsize=0, **streams
    )


def _follow(process: subprocess.Popen[bytes], deadline: float, out: Lines, errors: Lines) -> bool:
    """Read both streams until the process has ended; False where the deadline came first."""
    with selectors.DefaultSelector() as selector:
        for stream, lines in ((process.stdout, out), (process.stderr, errors)):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, lines)
        ended = None
        # A process that it left behind may hold the streams open, so their end is not waited for.
        while (now := time.monotonic()) < (deadline if ended is None else min(deadline, ended + GRACE)):
            if not selector.get_map():
                if ended is not None:
                    break
                time.sleep(_PULSE)
            for key, _ in selector.select(_PULSE):
                chunk = os.read(key.fd, 1 << 16)
                key.data.feed(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
            if ended is None and process.poll() is not None:
                ended = now
    out.end()
    errors.end()
    return ended is not None


def end_processes(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a part and whatever it started, also what left its group or outlived its parent."""
    with contextlib.suppress(OSError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    end_marked(mark)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that a driver holds cannot be ended
        process.wait(timeout=5)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@contextlib.contextmanager
def watched(mark: str) -> Iterator[None]:
    """Inside the block a second process waits, which ends all that is marked where this one is killed."""
    command = [sys.executable, str(Path(__file__).with_name("watchdog.py")), mark]
    # Its standard input ends with this process; a signal to this one's group does not reach it.
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        end_marked(mark)
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            guard.communicate(timeout=5)
