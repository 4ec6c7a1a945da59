"""Ends what a session started, also where the session itself was killed: ``python watchdog.py MARK`` waits for that.

Every process of a session, and whatever it starts, carries a mark in its environment, by which it is found: also one
that left its group or outlived its parent. Where the system has no /proc nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

VARIABLE = "FASTAMR_SESSION"


def marked(mark: str) -> list[int]:
    """Living processes whose mark begins with this one, but for the caller."""
    wanted = f"{VARIABLE}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError, ValueError):
            number = int(path.parent.name)
            # Of a process that has ended and is not waited for, nothing is left to read.
            if number != os.getpid() and b"\0" + wanted in b"\0" + path.read_bytes():
                found.append(number)
    return found


def end_marked(mark: str) -> None:
    """End them, and what they start meanwhile; one that a driver holds cannot be ended and is left."""
    for _ in range(100):
        left = marked(mark)
        if not left:
            return
        for number in left:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.stdin.buffer.read()  # ends when the session does, however it does
    end_marked(sys.argv[1])
