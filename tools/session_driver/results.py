"""What a session keeps: one line of JSON a result, what the gates let through, the table of the parts."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .watchdog import VARIABLE

# More than this of one part is not kept: bytes of a line, results, bytes of its log.
_LONGEST_LINE, MOST_RESULTS, _LARGEST_LOG = 64 << 10, 2000, 4 << 20
_MOST_TEXTS = 60
# States of what a gate checks, from good to bad: each call right; not checked, or only by calls that were not all made.
_RIGHT, _UNCHECKED, _PARTLY, _WRONG = "is right", "was not checked", "was not checked in full", "is wrong"
_STATES = (_RIGHT, _PARTLY, _WRONG)
# What only the driver says.
_RESERVED = ("part", "at", "status", "gate", "gate_why")


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
    gates: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    # One session may run inside a part of another, whose mark then begins its own.
    mark: str = field(
        default_factory=lambda: f"{os.environ.get(VARIABLE, '')}{os.getpid()}-{time.time_ns()}."
    )

    def mark_of(self, part: str) -> str:
        """What the processes of a part carry, see ``watchdog``."""
        return f"{self.mark}{part}."

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
        found = [(name, self.gates.get(name, _UNCHECKED)) for name in names]
        bad = [f"{name} {state}" for name, state in found if state != _RIGHT]
        return {"gate": not bad} | ({"gate_why": "; ".join(bad)} if bad else {})

    def _check(self, name: str, fields: dict[str, Any]) -> None:
        """One wrong call is enough; one that was due and was not made leaves the others without weight."""
        state = _RIGHT if fields.get("ok") is True else _WRONG if "ok" in fields else _PARTLY
        self.gates[name] = max(state, self.gates.get(name, _RIGHT), key=_STATES.index)

    def distrust(self, before: dict[str, str], *, ended: bool) -> None:
        """Take back what a part let through that came to no good end.

        Args:
            before: the gates as they were before the part.
            ended: it ended by itself, but not well; else it was ended at its time limit.
        """
        for name, state in list(self.gates.items()):
            if state == _RIGHT and before.get(name) != _RIGHT:
                if ended:
                    del self.gates[name]
                else:
                    self.gates[name] = _PARTLY

    def take(self, part: str, fields: dict[str, Any], outcome: Outcome) -> None:
        """Keep a part's result."""
        outcome.results += 1
        if outcome.results > MOST_RESULTS:
            return
        outcome.wrong += fields.get("ok") is False
        checked = fields.get("gates")
        for name in checked if isinstance(checked, list) else []:
            self._check(str(name), fields)
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


class Log(contextlib.AbstractContextManager["Log"]):
    """A file that takes lines up to a size, and nothing where it cannot be written; an empty one goes."""

    def __init__(self, path: Path) -> None:
        self._left, self._path = _LARGEST_LOG, path
        self._file: IO[bytes] | None = None
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
            empty = self._file.tell() == 0
            self._file.close()
            if empty:
                with contextlib.suppress(OSError):
                    self._path.unlink()
