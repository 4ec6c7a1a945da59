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
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
# More than this of one part is not kept: bytes of a line, results, bytes of its log.
_LONGEST_LINE, _MOST_RESULTS, _LARGEST_LOG = 64 << 10, 2000, 4 << 20
# Seconds: between two looks at a part, for what a part wrote last, and the least that a part is started with.
_PULSE, _GRACE, _LEAST = 0.1, 1.0, 3.0
_MOST_TEXTS = 40
# What only the driver says.
_RESERVED = ("part", "at", "status", "gate", "gate_why")


@dataclass(frozen=True)
class Part:
    """One part: its name, its seconds, what it finds out, and the command that runs it; empty for a real part."""

    name: str
    seconds: float
    what: str
    command: tuple[str, ...] = ()


REAL = (
    Part("environment", 25, "versions, clocks, copy rate, a large product, the cost of a graph of 200 nodes"),
    Part("warmup", 40, "compiles the kernels in several processes into one cache"),
    Part("gate1", 60, "each op and back end against float64 at the paper's shapes"),
    Part("gate2", 50, "one update against float64; 20 updates eager against recorded; graph=True"),
    Part("steps", 80, "the update with every choice: attention, side branch, weight gradients, products"),
    Part("profile", 30, "the kernels of the default update and of the fastest"),
    Part("products", 90, "each product: the library against every tile of the kernels, in a graph"),
    Part("attention", 25, "the own attention against cuDNN, flash and the other forms of SDPA"),
    Part("tune", 80, "fastamr tune, where that command exists"),
    Part("again", 25, "the default update once more, after tuning"),
    Part("tests", 600, "pytest -m gpu, file by file, as long as time is left"),
)

_REHEARSED = (
    ("gate", 10.0), ("lies", 10.0), ("measures", 10.0), ("hangs", 2.0), ("crashes", 10.0), ("shouts", 20.0),
    ("floods", 2.0), ("lingers", 10.0), ("silent", 10.0), ("last", 10.0),
)  # fmt: skip
REHEARSED = tuple(
    Part(name, seconds, "rehearsal", (str(ROOT / "tools" / "session_parts" / "rehearsal.py"), name))
    for name, seconds in _REHEARSED
)


class Stopped(BaseException):
    """A signal asks for the end."""


@dataclass
class Outcome:
    """How a part went; ``seconds`` is what it took, ``limit`` what it had."""

    part: str
    status: str
    seconds: float = 0.0
    limit: float = 0.0
    results: int = 0
    wrong: int = 0
    why: str = ""


@dataclass
class Session:
    """Where results go, and what the gates let through."""

    out: Path
    began: float = field(default_factory=time.monotonic)
    gates: dict[str, bool] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    spared: set[int] = field(default_factory=set)

    def emit(self, part: str, fields: dict[str, Any]) -> None:
        """Write one result; its name and moment are the driver's to say, and whether the gates let it through."""
        line = {"part": part, "at": round(time.monotonic() - self.began, 2)}
        line |= fields
        if "uses" in fields:
            line |= self._gate(fields["uses"])
        text = json.dumps(line, ensure_ascii=True)
        with contextlib.suppress(OSError), (self.out / "results.jsonl").open("a", encoding="ascii") as file:
            file.write(text + "\n")
        with contextlib.suppress(OSError, ValueError):
            print(text, flush=True)

    def _gate(self, uses: Any) -> dict[str, Any]:
        """False unless all that a result rests on was checked and right."""
        names = [str(name) for name in uses] if isinstance(uses, list) else [str(uses)]
        bad = [
            f"{name} {'is wrong' if name in self.gates else 'was not checked'}"
            for name in names
            if not self.gates.get(name, False)
        ]
        return {"gate": not bad} | ({"gate_why": "; ".join(bad)} if bad else {})

    def take(self, part: str, fields: dict[str, Any], outcome: Outcome) -> None:
        """Keep a part's result."""
        outcome.results += 1
        if outcome.results > _MOST_RESULTS:
            return
        outcome.wrong += fields.get("ok") is False
        checked = fields.get("gates")
        for name in checked if isinstance(checked, list) else []:
            # One wrong call is enough.
            self.gates[str(name)] = fields.get("ok") is True and self.gates.get(str(name), True)
        self.emit(part, {name: value for name, value in fields.items() if name not in _RESERVED})
        texts = self.texts.setdefault(part, [])
        if isinstance(fields.get("text"), str) and len(texts) < _MOST_TEXTS:
            failed = "uses" in fields and not self._gate(fields["uses"])["gate"]
            wrong = " [WRONG]" if fields.get("ok") is False else ""
            texts.append(printable(fields["text"])[:160] + wrong + (" [gate: false]" if failed else ""))

    def summary(self) -> str:
        """The table of the parts, and what they said in words."""
        wide = max([len(outcome.part) for outcome in self.outcomes] + [4])
        lines = [f"{'part':{wide}}  {'status':8} {'seconds':>15} {'results':>8} {'wrong':>6}  why"]
        for each in self.outcomes:
            took = f"{each.seconds:.1f} of {each.limit:.0f}"
            lines.append(
                f"{each.part:{wide}}  {each.status:8} {took:>15} {each.results:8d} {each.wrong:6d}  {each.why}".rstrip()
            )
        for part, texts in self.texts.items():
            lines += ["", part, *(f"  {text}" for text in texts)] if texts else []
        return "\n".join(lines) + "\n"

    def close(self, outcome: Outcome) -> None:
        """Write down how a part went."""
        self.outcomes.append(outcome)
        fields = {name: value for name, value in vars(outcome).items() if name not in ("part", "why")}
        fields["seconds"], fields["limit"] = round(outcome.seconds, 2), round(outcome.limit, 2)
        self.emit(outcome.part, fields | ({"why": outcome.why} if outcome.why else {}))
        with contextlib.suppress(OSError):
            (self.out / "summary.txt").write_text(self.summary(), encoding="ascii", errors="backslashreplace")


def printable(text: str) -> str:
    """The text in one line of ASCII, without control characters."""
    ascii_only = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(letter if letter.isprintable() else " " for letter in ascii_only)


class Lines:
    """Lines out of a stream of bytes; of a line that is too long only its beginning is kept.

    Args:
        take: receives each line, and whether it was cut.
    """

    def __init__(self, take: Any) -> None:
        self._take, self._rest, self._cut = take, b"", False

    def feed(self, chunk: bytes) -> None:
        """Take what was read."""
        first, *others = chunk.split(b"\n")
        self._add(first)
        for other in others:
            self.end()
            self._add(other)

    def end(self) -> None:
        """The line ends here."""
        if self._rest:
            self._take(self._rest, self._cut)
        self._rest, self._cut = b"", False

    def _add(self, part: bytes) -> None:
        self._cut = self._cut or len(self._rest) + len(part) > _LONGEST_LINE
        self._rest = (self._rest + part)[:_LONGEST_LINE]


def read_result(line: bytes) -> dict[str, Any]:
    """The object in a line of JSON; numbers that JSON does not have become text.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(line, parse_constant=str)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


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

        try:
            process = start(command)
        except OSError as error:
            outcome.status, outcome.why = "failed", f"it did not start: {error}"
            return outcome
        try:
            ended = _follow(process, began + limit, Lines(result), Lines(lambda line, cut: log.write(line)))
        finally:
            # Before the process is waited for: its number must still be its own.
            end_processes(process, session.spared)
    outcome.seconds = time.monotonic() - began
    _judge(outcome, process.returncode if ended else None, unreadable)
    if ended and process.returncode:
        session.gates = gates  # what a broken check let through is not checked
    return outcome


def _judge(outcome: Outcome, code: int | None, unreadable: int) -> None:
    """What a part says of itself does not count; how it ended does."""
    reasons = []
    if code is None:
        outcome.status = "over"
        reasons.append("ended at its time limit")
    elif code < 0:
        with contextlib.suppress(ValueError):
            reasons.append(f"died of {signal.Signals(-code).name}")
    elif code:
        reasons.append(f"exit status {code}")
    elif not outcome.results:
        reasons.append("no result")
    if unreadable:
        reasons.append(f"{unreadable} unreadable lines, see {outcome.part}.log")
    if outcome.results > _MOST_RESULTS:
        reasons.append(f"only the first {_MOST_RESULTS} results are kept")
    if reasons and outcome.status == "ok":
        outcome.status = "failed"
    outcome.why = "; ".join(reasons)


class Log(contextlib.AbstractContextManager["Log"]):
    """A file that takes lines up to a size, and nothing where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._left, self._file = _LARGEST_LOG, None
        with contextlib.suppress(OSError):
            self._file = path.open("wb")

    def write(self, line: bytes) -> None:
        """Write one line, as far as there is room."""
        if self._file is not None and self._left > 0:
            with contextlib.suppress(OSError):
                self._file.write(line[: self._left] + b"\n")
                self._file.flush()
        self._left -= len(line) + 1

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()


def start(command: list[str], output: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start a command of this checkout in a session of its own."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, bufsize=0, **streams)  # type: ignore[call-overload]


def _follow(process: subprocess.Popen[bytes], deadline: float, out: Lines, errors: Lines) -> bool:
    """Read both streams until the process has ended; False where the deadline came first."""
    with selectors.DefaultSelector() as selector:
        for stream, lines in ((process.stdout, out), (process.stderr, errors)):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, lines)
        ended = None
        # A process that it left behind may hold the streams open, so their end is not waited for.
        while (now := time.monotonic()) < (deadline if ended is None else min(deadline, ended + _GRACE)):
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


def _below(top: int, spared: set[int]) -> list[int]:
    """Living processes that descend from one, without those spared and theirs; empty where the system has no /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in brackets may hold anything.
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found, waiting = [], [top]
    while waiting:
        more = [child for child in children.get(waiting.pop(), []) if child not in spared]
        found += more
        waiting += more
    return found


def end_processes(process: subprocess.Popen[bytes], spared: set[int]) -> None:
    """End a part and whatever it started, also what left its group or outlived its parent."""
    with contextlib.suppress(OSError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for _ in range(50):
        left = _below(os.getpid(), spared)
        if not left:
            break
        for number in left:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that a driver holds cannot be ended
        process.wait(timeout=5)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class Background:
    """Compiles the CUDA attention beside the first parts; it is there when a later part looks for it."""

    def __init__(self, session: Session) -> None:
        self._session, self._began = session, time.monotonic()
        self._log = (session.out / "build.log").open("wb")
        self._process = start([sys.executable, "-m", "tools.session_parts", "build"], self._log)
        session.spared.add(self._process.pid)

    def look(self, *, end: bool = False) -> None:
        """Say once that it has ended; with ``end``, end it."""
        if self._process.pid not in self._session.spared or (self._process.poll() is None and not end):
            return
        self._session.spared.discard(self._process.pid)
        code = self._process.poll()
        end_processes(self._process, set())
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
            background = Background(session)
    try:
        for part in parts:
            limit = min(part.seconds, end - time.monotonic() - _GRACE)
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
    options = ["--device", given.device, "--out", str(given.out), "--seconds", f"{limit:.1f}"]
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
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts, in the order of --plan")
    parser.add_argument("--plan", action="store_true", help="print the parts with their limits, run nothing")
    parser.add_argument("--rehearse", action="store_true", help="run parts that hang, crash and lie")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the parts out")
    given = parser.parse_args(words)
    known = [part.name for part in (REHEARSED if given.rehearse else REAL)]
    for name in given.only or []:
        if name not in known:
            parser.error(f"--only {name}: no such part; expected some of {' '.join(known)}")
    if not given.seconds > 0:
        parser.error(f"--seconds {given.seconds}: expected a positive number")
    if given.out is None and not given.plan:
        parser.error("--out is missing: name the folder for the results")
    return given


def main(words: list[str] | None = None) -> int:
    """Run the session; 0 whatever its parts do, 2 for a wrong command line."""
    given = parse(words)
    parts = [
        part
        for part in (REHEARSED if given.rehearse else REAL)
        if given.only is None or part.name in given.only
    ]
    if given.plan:
        for part in parts:
            print(f"{part.name:12} {part.seconds:4.0f} s  {part.what}")
        return 0
    given.out = given.out.resolve()
    session = Session(given.out)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        if sys.platform == "linux":
            # What a part leaves behind becomes this process's child, and can be found and ended (prctl(2)).
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        with answering_signals():
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
