"""Worker processes under a time limit: each candidate runs in one of its own, which may hang or crash."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ..documents import printable
from .worker import MARK, Job

_running: set[subprocess.Popen[bytes]] = set()

WORKER = (sys.executable, "-m", "fastamr.tuning.worker")
_LONGEST_LINE = 1 << 16
# Seconds that a process has to start, or to go.
_STARTING, _LEAVING = 120.0, 10.0


@dataclass
class Outcome:
    """What a worker found.

    Attributes:
        found: by number of the class, what was written of it.
        stopped: why the worker did not finish: killed at its limit, or how it ended; None where it did.
        at: number of the class that it had come to.
        by_system: whether somebody else killed it, as a system does that runs out of memory: no fault of a back end.
    """

    found: dict[int, dict[str, Any]] = field(default_factory=dict)
    stopped: str | None = None
    at: int = 0
    by_system: bool = False


def carry_out(job: Job, limit: float, command: Sequence[str] = WORKER) -> Outcome:
    """Run a job in a process of its own, which is killed where it takes too long over one class.

    Args:
        job: what is to be done; of kind ``tiles`` its kernels choose their blocks by timing.
        limit: seconds for a class, after those that the process needs to start.
        command: of the worker.
    """
    outcome = Outcome()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(job.kind == "tiles"),
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        _running.add(process)
        try:
            with suppress(BrokenPipeError):  # it ended before it read
                process.stdin.write(json.dumps(asdict(job)).encode())
                process.stdin.close()
            with suppress(queue.Empty, subprocess.TimeoutExpired):
                for values in _messages(process.stdout, limit):
                    number = values.pop("number")
                    outcome.at = max(number, 0)
                    if values.pop("state") == "done":
                        outcome.found[number] = values
                        outcome.at = number + 1
                process.wait(_LEAVING)
            if process.returncode != 0 or len(outcome.found) < len(job.shapes):
                outcome.stopped = _ending(process.returncode, limit, errors)
                outcome.by_system = process.returncode == -signal.SIGKILL
        finally:
            _end(process)
            _running.discard(process)
    return outcome


def _environment(tiles: bool) -> dict[str, str]:
    """The parent's, without choices of back ends: the worker is told which one it runs."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    values = {name: value for name, value in os.environ.items() if name != "FASTAMR_BACKEND"}
    values |= {"FASTAMR_TUNING": "off", "FASTAMR_AUTOTUNE": "1" if tiles else "0"}
    return {**values, "PYTHONPATH": os.pathsep.join(paths)}


def _messages(stream: IO[bytes], limit: float) -> Iterator[dict[str, Any]]:
    """What a worker writes, until it ends.

    Raises:
        queue.Empty: it was silent for longer than the limit.
    """
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        with suppress(ValueError, OSError):  # closed after the process was killed
            while line := stream.readline(_LONGEST_LINE):
                if line.startswith(MARK.encode()):
                    lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    patience = max(limit, _STARTING)
    while line := lines.get(timeout=patience):
        patience = limit
        with suppress(ValueError):
            values = json.loads(line[len(MARK) :])
            if isinstance(values, dict) and isinstance(values.get("number"), int) and "state" in values:
                yield values


def _ending(code: int | None, limit: float, errors: IO[bytes]) -> str:
    """How a worker ended that did not finish, in words."""
    if code is None:
        return f"no end: killed after {limit:g} s"
    errors.seek(0)
    lines = [line for line in errors.read()[-10_000:].decode("utf-8", "replace").splitlines() if line.strip()]
    said = f": {printable(lines[-1].strip())[:200]}" if lines else ""
    if code < 0:
        with suppress(ValueError):
            return f"crashed: ended by {signal.Signals(-code).name}{said}"
    return f"crashed: exit code {code}{said}"


def end_all() -> None:
    """Kill every worker that runs, as when the user interrupts."""
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker and whatever it started, if it is still there."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING)
