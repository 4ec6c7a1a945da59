"""A progress bar that moves with the clock, and lines that are printed above it."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, TextIO

from .documents import printable_lines

# Seconds between two drawings: a terminal is redrawn, a log file grows by a line.
TERMINAL, FILE = 0.5, 30.0


class Progress:
    """A bar over updates on standard error, with the time passed and the time left.

    A thread redraws it, so the clock also moves while one update takes minutes; the loop only counts.

    Args:
        total: updates of the run.
        name: what stands before the bar.
        start: updates done before.
        show: False for silence.
        interval: seconds between two drawings; None = 0.5 on a terminal, 30 in a file.
        unit: what is counted.
    """

    def __init__(
        self,
        total: int,
        name: str,
        *,
        start: int = 0,
        show: bool = True,
        interval: float | None = None,
        unit: str = "update",
    ) -> None:
        self._bar: Any = None
        if not show or sys.stderr is None:  # as in a program without a console
            return
        from tqdm import tqdm

        if interval is None:
            interval = TERMINAL if sys.stderr.isatty() else FILE
        self._bar = tqdm(
            total=total, initial=start, desc=name, unit=unit, mininterval=interval, miniters=1,
            smoothing=0.1, dynamic_ncols=True,
        )  # fmt: skip
        self._closed = threading.Event()
        self._clock = threading.Thread(target=self._redraw, args=(interval,), daemon=True)
        self._clock.start()

    def _redraw(self, interval: float) -> None:
        while not self._closed.wait(interval):
            if time.time() - self._bar.last_print_t >= interval:  # no update has ended since
                self._bar.refresh()

    def advance(self, updates: int = 1, note: str = "") -> None:
        """Count updates that are done; the note stands behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(updates)

    def close(self) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._closed.set()
            self._clock.join()
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line at once, above the bars that are shown.

    Args:
        text: the line, or several.
        file: where to; None = standard error.
    """
    from tqdm import tqdm

    file = sys.stderr if file is None else file
    if file is None:
        return
    tqdm.write(printable_lines(text), file=file)
    file.flush()
