"""How far a run is, read from its folder alone, and what the complete runs of a sweep were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from ..documents import parse_json_text
from ..files import write_text
from ..folders import MANIFEST
from ..training.checkpoint import STATE_FILE, finished_updates
from ..training.config import PretrainConfig

_METRICS = "metrics.jsonl"
NOTES_FILE = "sweep.json"
"""In the folder of a sweep: the settings that its complete runs were asked for, by folder."""


class RunState(NamedTuple):
    """How far a run is.

    Attributes:
        complete: it has made all its updates, and its files are there.
        update: updates that the last checkpoint holds; None without one.
        total: updates that it was to make; None where that is not known.
        loss: at its end; None before, or where it is not known.
    """

    complete: bool
    update: int | None = None
    total: int | None = None
    loss: float | None = None

    def __str__(self) -> str:
        if self.complete:
            loss = "" if self.loss is None else f", loss {self.loss:.4f}"
            return f"{self.update:,} updates{loss}"
        if self.update is None:
            return "nothing is saved"
        return f"update {self.update:,}" + ("" if self.total is None else f" of {self.total:,}")


def state_of(folder: str | Path) -> RunState:
    """Return how far the run in a folder is; a file that is damaged counts as missing.

    Runs of versions that wrote no ``complete.json`` are complete where their metrics end with a summary.
    """
    folder = Path(folder)
    records = _records(folder)
    summary = records.get("summary") or {}
    updates = finished_updates(folder)
    if updates is None and not (folder / MANIFEST).is_file():
        updates = summary.get("updates")  # written before there were manifests and complete.json
    if isinstance(updates, int):
        loss = summary.get("loss")
        return RunState(True, updates, updates, loss if isinstance(loss, float) else None)
    total = (records.get("header") or {}).get("updates")
    return RunState(False, _saved_update(folder / STATE_FILE), total if isinstance(total, int) else None)


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last record of each kind in a run's metrics."""
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = (folder / _METRICS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        if '"header"' in line or '"summary"' in line:
            try:
                record = json.loads(line)
                found[record["kind"]] = record
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
    return found


def _saved_update(path: Path) -> int | None:
    """Return the update of a checkpoint from the header of its file."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        update = parse_json_text(header["state"], f"the state of {path}")["update"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return update if isinstance(update, int) else None


def note_asked(out: str | Path, folder: Path, config: PretrainConfig) -> None:
    """Write down what a run that is complete was asked for.

    Args:
        out: folder of the sweep.
        folder: of the run.
        config: what it was asked for.

    Raises:
        OSError: it cannot be written.
    """
    asked = _asked(out) | {folder.name: config.to_dict()}
    write_text(Path(out) / NOTES_FILE, json.dumps(asked, indent=1) + "\n")


def is_done(out: str | Path, folder: Path, config: PretrainConfig) -> bool:
    """Return whether a run is complete and was asked for with exactly these settings; the arguments are as before."""
    return state_of(folder).complete and _asked(out).get(folder.name) == config.to_dict()


def _asked(out: str | Path) -> dict[str, Any]:
    try:
        found = json.loads((Path(out) / NOTES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
