"""Rows of runs that differ in their pre-training seed only, as one row; runs that are not complete stay apart."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .comparison import Cell, Group, Row

# What may differ between runs of one setting.
_FREE = (
    "seed", "out", "resume", "overwrite", "profile", "graph", "data_budget", "recompute", "side_branch", "log_every",
    "checkpoint_every", "probe_every", "tensorboard", "track", "progress",
)  # fmt: skip


def mark_unfinished(groups: Iterable[Group], unfinished: Mapping[str, str]) -> None:
    """Note in the rows of runs that are not complete how far they are; no group takes them in.

    Args:
        groups: the tables, whose rows are changed.
        unfinished: by folder of a run, how far it is.
    """
    for row in (row for group in groups for row in group.rows):
        for run in row.run.split(" + "):
            if run in unfinished:
                note = f"unfinished: {unfinished[run]}"
                row.note = f"{row.note}, {note}" if row.note else note
                row.pretraining = []


def group_seeds(groups: Iterable[Group]) -> list[Group]:
    """Return the tables with one row for all runs that differ in their seed only.

    Each run counts with its mean over the evaluation's seeds, so that mean and deviation are those of the runs; the
    row's run says where they lie and how many they are. A baseline that is the same for all of them keeps its values.
    Rows whose run is not known, and a second run of one seed, stay as they are.
    """
    return [dataclasses.replace(group, rows=_grouped(group.rows)) for group in groups]


def _grouped(rows: Sequence[Row]) -> list[Row]:
    kinds: dict[str, list[Row]] = {}
    for place, row in enumerate(rows):
        same = kinds.setdefault(_kind(row) or f"row {place}", [])
        if any(_seeds(row) == _seeds(other) for other in same):
            kinds[f"row {place}"] = [row]
        else:
            same.append(row)
    return [same[0] if len(same) == 1 else _merged(same) for same in kinds.values()]


def _kind(row: Row) -> str | None:
    """Return what rows of one setting have in common; None where a run's configuration is not known."""
    if not row.pretraining or not all("seed" in one for one in row.pretraining):
        return None
    kept = [
        {name: _bare(name, value) for name, value in one.items() if name not in _FREE}
        for one in row.pretraining
    ]
    return json.dumps([row.method, row.source, row.settings, kept], sort_keys=True, default=str)


def _bare(name: str, value: Any) -> Any:
    """Return a setting, files by their names, as they may lie elsewhere."""
    if name == "data" and isinstance(value, list):
        return [Path(str(one)).name for one in value]
    return value


def _seeds(row: Row) -> list[Any]:
    return [one.get("seed") for one in row.pretraining]


def _merged(rows: Sequence[Row]) -> Row:
    first = rows[0]
    run = f"{_together([row.run for row in rows])} (n = {len(rows)})"
    if all(row.cells == first.cells for row in rows) and first.method.startswith(
        ("random", "encoder's input")
    ):
        return dataclasses.replace(first, run=run)
    cells: dict[str, Cell | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row.cells):
        found = [row.cells.get(name) for row in rows]
        values = tuple(cell.mean for cell in found if cell is not None)
        cells[name] = Cell(values) if len(values) == len(rows) else None
    return dataclasses.replace(first, run=run, cells=cells)


def _together(runs: Sequence[str]) -> str:
    """Return several folders in one text, as ``runs/amr/{seed-0, seed-1}``."""
    parents = {os.path.dirname(run) for run in runs}
    if len(parents) > 1 or any(" + " in run for run in runs):
        return ", ".join(runs)
    return os.path.join(*parents, f"{{{', '.join(map(os.path.basename, runs))}}}")
