"""Where a run's numbers always go: metrics.jsonl."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...devices import environment as describe
from ...files import write_text

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends records to ``metrics.jsonl``; the :class:`fastamr.tracking.Tracker` of every run, whose failure ends it.

    Each line is one JSON object with a ``kind``: ``header`` (versions, device, sizes, plan), ``estimate`` (of the
    time), ``train``, ``probe``, ``warning``, ``skipped``, ``summary``. A resumed run drops the lines of updates that
    its checkpoint does not hold.

    Args:
        folder: the run's folder.
        start: the update that the run starts from; 0 begins a new file.

    Attributes:
        notes: lines of an earlier file that are no records and were left out, in words.
    """

    def __init__(self, folder: Path, *, start: int = 0) -> None:
        path = folder / METRICS_FILE
        lines, self.notes = _lines_until(path, start) if start else ([], [])
        write_text(path, "".join(lines))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record.

        Raises:
            OSError: it cannot be written.
        """
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions and the device that a run's numbers hold for."""
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return {**describe(device), "platform": platform.platform(), "started": started}


def _lines_until(path: Path, update: int) -> tuple[list[str], list[str]]:
    """Return the lines of a metrics file up to an update, and what to note of those that are no records."""
    kept, notes = [], []
    text = path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""
    for number, line in enumerate(text.split("\n"), 1):
        try:
            record = json.loads(line) if line.strip() else None
            if record is not None and record.get("update", 0) <= update and record.get("kind") != "summary":
                kept.append(line + "\n")
        except (ValueError, TypeError, AttributeError, RecursionError):
            notes.append(f"{path}, line {number} is no record of a run and is left out: {line[:60]!r}")
    return kept, notes
