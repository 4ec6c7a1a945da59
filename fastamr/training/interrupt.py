"""Signals that end a run: they are answered at once, whatever the main thread computes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from ..progress import say

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What a queue sends some time before it ends a job; Windows has no such signal.
_NOTICES = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))
# Seconds that compiled code may hold the main thread before the process ends without it.
_GRACE = 1.0
# Seconds in which a launcher passes on a signal that its processes got themselves, as after Ctrl-C.
_ECHO = 5.0


def under_launcher() -> bool:
    """Return whether torchrun started this process, alone or with others: it passes on the signals that it gets."""
    return "TORCHELASTIC_RUN_ID" in os.environ


class StopSignals:
    """Context manager that turns SIGINT, SIGTERM and SIGUSR1 into a flag, or into ``KeyboardInterrupt``.

    Python calls a handler only when compiled code returns, which in a large update on a CPU takes up to a minute. So a
    thread reads the signals too: it answers the first one, and where the main thread is still in the context a second
    after the signal that ends it, the thread ends the process with exit code 130, unless the session is interactive.

    Handlers can be set in the main thread only; in any other thread nothing is changed and ``requested``
    stays False.

    Args:
        ending: returns what the ``KeyboardInterrupt`` says; called from any thread.
        finishing: the answer to a first signal, which then only sets ``requested``; the second SIGINT or SIGTERM ends
            the context. None = the first signal does. "" = no answer.
        together: a launcher started the process and passes signals on, which a queue may have sent to all: what comes
            within five seconds of the first signal is taken for the same one.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(
        self, ending: Callable[[], str], finishing: str | None = None, *, together: bool = False
    ) -> None:
        self.ending, self.finishing, self.together = ending, finishing, together
        self._since = 0.0
        self.requested = self._ended = self._insisted = False
        self._seen, self._left = 0, threading.Event()
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._thread = threading.Thread(target=self._answer, daemon=True)
            self._thread.start()
            self._previous = {
                number: signal.signal(number, self._request) for number in (*_SIGNALS, *_NOTICES)
            }
            self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous:
            self._left.set()
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._previous_fd)
            self._writer.close()
            self._thread.join()
            self._reader.close()
        if self._ended and kind is KeyboardInterrupt:
            raise KeyboardInterrupt(self.ending()) from None

    def _request(self, number: int, frame: FrameType | None) -> None:
        # Several signals during compiled code make one call, so the thread may have seen more of them.
        again = number in _SIGNALS and ((self._insisted and not self.together) or self._seen > 1)
        self._ended = self._ended or self.finishing is None or again
        self._insisted = self._insisted or number in _SIGNALS
        self.requested = True
        if self._ended:
            previous = self._previous.get(signal.Signals(number))
            if callable(previous):
                previous(number, frame)
            raise KeyboardInterrupt

    def _answer(self) -> None:
        """Read the number of each signal until the context is left."""
        told = False
        while received := self._reader.recv(1):
            if received[0] not in (*_SIGNALS, *_NOTICES):
                continue
            if self.together and told and time.monotonic() - self._since < _ECHO:
                continue
            self._seen += received[0] in _SIGNALS
            if self.finishing is not None and self._seen < 2:
                if not told:
                    self._since = time.monotonic()
                    if self.finishing:
                        say(self.finishing)
                told = True
            elif not self._left.wait(_GRACE) and not hasattr(sys, "ps1"):
                say(f"interrupted: {self.ending()}")
                os._exit(130)
