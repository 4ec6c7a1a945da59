"""Runs made one after the other, each in a process of its own, so that the end of one is not that of the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ..folders import FolderLock
from ..progress import say
from ..training.checkpoint import STATE_FILE
from .plan import Member
from .state import RunState, is_done, note_asked, state_of

WHAT = "fastamr sweep"
# A run takes this for a wish to save and leave, however often it comes; it ends at once at a second one of the others.
_NOTICE = getattr(signal, "SIGUSR1", signal.SIGTERM)
_INSISTING = (signal.SIGINT, signal.SIGTERM)
# The terminal is gone; Windows has no such signal.
_HANGUP = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))
_INTERRUPTED = 130


class Outcome(NamedTuple):
    """What became of a run.

    Attributes:
        member: the run.
        word: ``complete``, ``failed``, ``stopped`` or ``not started``.
        detail: how far it is, and the exit code of one that failed.
    """

    member: Member
    word: str
    detail: str


def carry_out(members: Sequence[Member], out: str | Path, *, stop: bool = False) -> list[Outcome]:
    """Make the runs that are missing, in order; those that are complete are left alone.

    Each is ``fastamr pretrain`` in a process of its own. SIGINT, SIGTERM, SIGUSR1 and SIGHUP have the one that runs
    save and leave, and no other is started; a second SIGINT or SIGTERM ends it at once.

    Args:
        members: the runs.
        out: the folder that theirs lie in; no second sweep works in it meanwhile.
        stop: after a run that failed start no other.

    Returns:
        What became of each run, in the same order.

    Raises:
        BlockingIOError: another sweep works in the folder.
        FileExistsError: the folder is that of a run.
        OSError: the folder cannot be written.
    """
    if (Path(out) / STATE_FILE).exists():
        raise FileExistsError(f"out {str(out)!r} holds a run itself; name a folder that holds none")
    outcomes: list[Outcome] = []
    with FolderLock(out, WHAT), _Child() as child:
        for number, member in enumerate(members, 1):
            failed = stop and any(outcome.word == "failed" for outcome in outcomes)
            if failed or child.asked:
                outcomes.append(Outcome(member, "not started", str(state_of(member.folder))))
                continue
            say(f"run {number} of {len(members)}: {member.folder}")
            outcomes.append(_make(member, out, child))
    return outcomes


def _make(member: Member, out: str | Path, child: _Child) -> Outcome:
    if is_done(out, member.folder, member.config):
        return Outcome(member, "complete", str(state_of(member.folder)))
    code = child.run([sys.executable, "-m", "fastamr", "pretrain", *member.words])
    state = state_of(member.folder)
    if code == 0 and state.complete:
        note_asked(out, member.folder, member.config)
        return Outcome(member, "complete", str(state))
    if child.asked or code == _INTERRUPTED:
        return Outcome(member, "stopped", _left(state))
    return Outcome(member, "failed", f"{_ending(code)}; {_left(state)}")


def _left(state: RunState) -> str:
    return str(state) if state.update is None else f"{state} is saved"


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


class _Child:
    """Context manager: one process at a time, which gets the signals that this process gets.

    It is in a process group of its own, so that Ctrl-C in a terminal reaches it once, through this process. The first
    signal goes on as SIGUSR1: where a queue signals all processes of a job, none has then got two that insist.

    Attributes:
        asked: a signal has come.
    """

    def __init__(self) -> None:
        self.asked = self._insisted = False
        self._process: subprocess.Popen[bytes] | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Child:
        if threading.current_thread() is threading.main_thread():
            hangups = [
                number for number in _HANGUP if signal.getsignal(number) is not signal.SIG_IGN
            ]  # nohup
            self._previous = {
                number: signal.signal(number, self._pass_on) for number in {*_INSISTING, *hangups, _NOTICE}
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def run(self, words: Sequence[str]) -> int:
        """Return the exit code of a command; minus the number of the signal that ended it."""
        group = None if sys.platform == "win32" else 0
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=group) as self._process:
            if self.asked:  # while it was started
                self._process.send_signal(_NOTICE)
            return self._process.wait()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        again = self._insisted and number in _INSISTING
        self.asked, self._insisted = True, self._insisted or number in _INSISTING
        if self._process is not None:
            for each in _INSISTING if again else (_NOTICE,):
                self._process.send_signal(each)
