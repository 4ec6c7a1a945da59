"""Parts for a rehearsal: one that is sound, and others that do what must not harm a session."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

# A process in a session of its own, which a signal to its parent's group does not reach.
SLEEPER = "import time; time.sleep(600)  # left by a rehearsal"


def say(**fields: object) -> None:
    """One result."""
    print(json.dumps(fields), flush=True)


def leave_a_process() -> int:
    """Start a process that outlives this one and holds its streams; return its number."""
    return subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True).pid


def gate() -> None:
    """Two back ends are right, one is wrong in one of its calls."""
    say(gates=["first=good"], ok=True, text="first=good")
    say(gates=["second=bad"], ok=False, text="second=bad")
    say(gates=["second=bad"], ok=True)
    say(gates=["third=good"], ok=True)
    for _ in range(2):
        say(gates=["fifth=half"], skipped="no time was left")
        say(gates=["fifth=half"], ok=True)


def measures() -> None:
    """What was measured with them, and with one that only a broken gate saw."""
    say(name="sound", ms=1.0, uses=["first=good", "third=good"], text="sound: 1.0 ms")
    say(name="unsound", ms=0.5, uses=["first=good", "second=bad"], gate=True, text="unsound: 0.5 ms")
    say(name="unseen", ms=0.25, uses=["fourth=new"])
    say(name="half seen", uses=["fifth=half"])
    say(name="hung", uses=["sixth=hung"])
    say(name="without a gate", ms=0.125, gate=True)
    say(name="not finite", ms=float("nan"), worst=float("-inf"))


def hangs() -> None:
    """Ignores what can be ignored, and is not alone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(gates=["sixth=hung"], ok=True)
    say(left=[os.getpid(), leave_a_process()])
    while True:
        time.sleep(60)


def crashes() -> None:
    """Reads at address 0."""
    say(before="the crash")
    ctypes.string_at(0)


def lies() -> None:
    """Claims success, as another part, among what is no result."""
    print("some library's greeting")
    for line in ('{"broken": ', "{1: 2}", "[1, 2]", "null", '{"deep": ' + "[" * 5000, "{\x00\x1b[31m}"):
        print(line)
    os.write(1, b'{"bytes": "\xff\xfe"}\n')
    say(part="gate", at=-1, status="ok", ok=True, gates="no list", text="fine\n\x1b[31m", uses={"a": 1})
    say(gates=["fourth=new"], ok=True)
    sys.exit(1)


def shouts() -> None:
    """A line of 50 MB on both streams, and a result after it."""
    for stream in (1, 2):
        for _ in range(50):
            os.write(stream, b'{"' + b"x" * (1 << 20))
    os.write(1, b"\n")
    say(after="the long line")


def floods() -> None:
    """Results without end."""
    number = 0
    while True:
        number += 1
        say(number=number)


def lingers() -> None:
    """Ends well and leaves a process behind."""
    say(left=[leave_a_process()])


def silent() -> None:
    """Says nothing."""


def last() -> None:
    """The session came this far."""
    say(ok=True, text="the last part ran")


def work(context: Any, task: str) -> None:
    """A task for a worker."""
    if task == "hangs":
        time.sleep(600)
    if task == "raises":
        raise ValueError("a task that fails")
    if task == "dies":
        os._exit(3)
    if task == "spoils":
        from tools.session_parts import workers

        workers.is_sound = lambda context: False
    say(task=task, process=os.getpid())


def label(context: Any, task: str) -> dict[str, Any]:
    """What a task is called."""
    return {"task": task}


if __name__ == "__main__":
    {
        part.__name__: part
        for part in (gate, measures, hangs, crashes, lies, shouts, floods, lingers, silent, last)
    }[sys.argv[1]]()
