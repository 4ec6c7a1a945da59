"""Where a run's numbers go: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ...devices import environment as describe
from ...files import write_text
from ...folders import note_written

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends records to ``metrics.jsonl`` and mirrors their numbers to TensorBoard.

    Each line is one JSON object with a ``kind``: ``header`` (versions, device, sizes, plan), ``estimate`` (of the
    time), ``train``, ``probe``, ``warning``, ``skipped``, ``summary``. A resumed run drops the lines of updates that
    its checkpoint does not hold.

    Args:
        folder: the run's folder.
        start: the update that the run starts from; 0 begins a new file.
        tensorboard: write event files too, where the package is installed.

    Attributes:
        notes: lines of an earlier file that are no records and were left out, in words.
    """

    def __init__(self, folder: Path, *, start: int = 0, tensorboard: bool = True) -> None:
        path = folder / METRICS_FILE
        lines, self.notes = _lines_until(path, start) if start else ([], [])
        write_text(path, "".join(lines))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        self._board = _summary_writer(folder / "tensorboard", start) if tensorboard else None

    def write(self, kind: str, **values: Any) -> None:
        """Append one record; its numbers appear in TensorBoard as ``kind/name`` at ``update``."""
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        self._file.flush()
        if self._board is not None and kind in ("train", "probe"):
            for name, value in values.items():
                if name != "update":
                    self._board.add_scalar(f"{kind}/{name}", value, values["update"])

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


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


def _summary_writer(folder: Path, start: int) -> Any:
    """Return the writer of event files, whose file is noted in the run's manifest; None without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print(
            "tensorboard is not installed, so no event files are written: pip install 'fastamr[tensorboard]'",
            file=sys.stderr,
        )
        return None
    before = set(folder.glob("*"))
    try:
        board = SummaryWriter(str(folder), purge_step=start + 1)
    except UnicodeEncodeError:  # a name that the locale's encoding lacks, or that has none
        print(
            "TensorBoard cannot write into a folder of this name, so no event files are written",
            file=sys.stderr,
        )
        return None
    note_written(folder.parent, *sorted(set(folder.glob("*")) - before))
    return board
