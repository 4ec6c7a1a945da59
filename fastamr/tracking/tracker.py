"""What a tracker is, and what it is told of the run that it tracks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..documents import load_json_text
from ..files import write_text
from ..folders import note_written

TRACKING_FILE = "tracking.json"


class Tracker(Protocol):
    """Something that hears of a run; a class of this form is called with a :class:`TrackedRun`.

    It is made in the main thread before the first update. ``log`` and ``close`` are called in one other thread, in the
    order of the records, so that a slow one does not keep the updates waiting. An exception ends the tracker, with a
    warning, and not the run. Of several processes only the first one has trackers.
    """

    def log(self, record: Mapping[str, Any]) -> None:
        """Take a record, as it is a line of ``metrics.jsonl``: ``kind`` (``header``, ``train``, ``probe``, ...),
        ``update``, and values by name."""

    def close(self) -> None:
        """The run has ended, or was stopped."""


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker is of.

    Attributes:
        folder: of the run.
        command: ``pretrain``, ``finetune`` or ``distill``.
        config: the complete configuration, plain values.
        update: the update that the run goes on from; 0 for a new one.
        updates: that it ends with.
    """

    folder: Path
    command: str
    config: Mapping[str, Any]
    update: int
    updates: int

    @property
    def name(self) -> str:
        """What the run is called: its folder, as it was given."""
        return self.folder.as_posix()

    def recall(self, tracker: str) -> str | None:
        """Return what a tracker remembered when the run began, by which it continues it; None for a new run.

        Raises:
            ValueError: the file in the folder is damaged.
        """
        path = self.folder / TRACKING_FILE
        if not self.update or not path.is_file():
            return None
        found = load_json_text(path)
        value = found.get(tracker) if isinstance(found, dict) else None
        return value if isinstance(value, str) else None

    def remember(self, tracker: str, value: str) -> None:
        """Keep a text, such as the identity of the run with a tracker, in the run's folder.

        Raises:
            OSError: it cannot be written.
        """
        path = self.folder / TRACKING_FILE
        known = load_json_text(path) if path.is_file() else {}
        note_written(self.folder, TRACKING_FILE)
        write_text(path, json.dumps({**known, tracker: value}, indent=2) + "\n")


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record of the training or of a probe as ``kind/name``; those of other kinds are none."""
    kind = record["kind"]
    if kind not in ("train", "probe"):
        return {}
    return {
        f"{kind}/{name}": float(value)
        for name, value in record.items()
        if name != "update" and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
