"""Handing records to trackers without waiting for them, and without ending a run that one of them fails."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import told
from .choose import find
from .tracker import TRACKING_FILE, TrackedRun, Tracker

# Records that may wait for a tracker that hangs, and the seconds that the end of a run waits for it (choice).
MOST, PATIENCE = 10_000, 30.0


class Tracking:
    """The trackers of a run, and the thread in which they work.

    A tracker that raises is left out from then on: it is told once, and the run goes on.

    Args:
        names: of the trackers, see :func:`fastamr.tracking.choose.find`.
        run: the run.
        tell: called with a line for each tracker that fails, in the thread and within the next call of :meth:`log` or
            :meth:`close`.
        patience: seconds that :meth:`close` waits.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: TrackedRun,
        tell: Callable[[str], None],
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._tell, self._patience = tell, patience
        self._trackers: dict[str, Tracker] = {}
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._records: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST)
        if not run.update:
            (run.folder / TRACKING_FILE).unlink(missing_ok=True)
        for name in names:
            try:
                self._trackers[name] = find(name)(run)
            except Exception as error:
                self._failures.put(_failure(name, error))
        self._thread: threading.Thread | None = None
        if self._trackers:
            self._thread = threading.Thread(target=self._deliver, name="fastamr trackers", daemon=True)
            self._thread.start()

    def log(self, record: Mapping[str, Any]) -> None:
        """Hand a record over; nothing waits for its arrival."""
        self._tell_failures()
        if self._thread is None:
            return
        try:
            self._records.put_nowait(dict(record))
        except queue.Full:
            self._thread = None
            self._tell(
                f"{' and '.join(self._trackers)} did not take {MOST} records: tracked no longer; the run goes on, and "
                "metrics.jsonl has them all"
            )

    def close(self) -> None:
        """Let the trackers take what is left, and close them."""
        thread, self._thread = self._thread, None
        self._tell_failures()
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._records.put_nowait(None)
        thread.join(self._patience)
        self._tell_failures()
        if thread.is_alive():
            self._tell(
                f"{' and '.join(self._trackers)} did not take the last records in {self._patience:g} s: they may lack "
                "there; metrics.jsonl has them all"
            )

    def _tell_failures(self) -> None:
        while not self._failures.empty():
            self._tell(self._failures.get())

    def _deliver(self) -> None:
        while (record := self._records.get()) is not None:
            for name in list(self._trackers):
                self._guard(name, record)
        for name in list(self._trackers):
            self._guard(name, None)

    def _guard(self, name: str, record: Mapping[str, Any] | None) -> None:
        """Hand a record to a tracker, or close it for None; leave one out that fails."""
        try:
            if record is None:
                self._trackers[name].close()
            else:
                self._trackers[name].log(record)
        except BaseException as error:  # nothing that a tracker raises may end the thread unsaid
            tracker = self._trackers.pop(name)
            self._failures.put(_failure(name, error))
            with contextlib.suppress(Exception):
                tracker.close()


def _failure(name: str, error: BaseException) -> str:
    return (
        f"track {name} failed ({type(error).__name__}: {told(error)}): the run goes on without it, and metrics.jsonl "
        "has all records"
    )
