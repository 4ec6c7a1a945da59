"""The ladder as text, markdown and JSON, with its ratios and what its FLOPs count."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from ..tables import aligned, figure, markdown, times_text
from .cost import CONVENTION
from .rungs import RUNGS, Ladder, Row

RATIOS = {
    "released": "SkeletonMAE as released",
    "skeleton_mae": "the strongest PyTorch SkeletonMAE of this run",
    "amr": "the best plain-PyTorch AMR of this run",
    "skeleton_mae_fast": "SkeletonMAE by the same step of fastamr",
}
_PRECISIONS = {rung.name: rung.precision for rung in RUNGS}
BOTH_FAST = "AMR against SkeletonMAE, both fast"

_COLUMNS: tuple[tuple[str, Callable[[Row, Row | None], str]], ...] = (
    ("ms / step", lambda row, base: _number(row.ms, "{:,.2f}")),
    ("sequences/s", lambda row, base: _dash_or(figure, row.sequences_per_second)),
    ("peak memory", lambda row, base: memory_text(row.peak_bytes)),
    ("MFU", lambda row, base: _number(row.mfu, "{:.1%}")),
    ("vs released", lambda row, base: _times(base, row)),
    ("to prepare", lambda row, base: _number(row.prepare_seconds, "{:.1f} s")),
    ("loss error", lambda row, base: _number(row.error, "{:.1e}")),
)


def ratios(ladder: Ladder) -> list[dict[str, Any]]:
    """The ratios of each of the library's own AMR rungs, always together.

    Returns:
        One entry per measured AMR rung of fastamr: ``rung``, and for each name in :data:`RATIOS` either ``{"against":
        rung, "times": how many times as fast}`` or None where that run lacks a rung to compare with.
    """
    plain, fast = (
        [row for row in ladder.rows if row.ms is not None and row.fast is own] for own in (False, True)
    )
    bases = {
        "released": _first(row for row in plain if row.name == "mae-fp32"),
        "skeleton_mae": _fastest(row for row in plain if row.model == "skeleton_mae"),
        "amr": _fastest(row for row in plain if row.model == "amr"),
    }
    found = []
    for row in fast:
        if row.model == "amr":
            own = {**bases, "skeleton_mae_fast": _skeleton_mae_like(row, fast)}
            found.append({"rung": row.name, **{name: _compared(base, row) for name, base in own.items()}})
    return found


def _skeleton_mae_like(row: Row, fast: Iterable[Row]) -> Row | None:
    """SkeletonMAE by the library's step in the precision of an AMR row."""
    return _fastest(
        each
        for each in fast
        if each.model == "skeleton_mae" and _PRECISIONS[each.name] == _PRECISIONS[row.name]
    )


def _compared(base: Row | None, row: Row) -> dict[str, Any] | None:
    if base is None or base.ms is None or row.ms is None:
        return None
    return {"against": base.name, "times": base.ms / row.ms}


def both_fast(ladder: Ladder) -> tuple[Row, Row] | None:
    """The library's fastest AMR rung that has a SkeletonMAE rung of the same precision, and the latter; None without.

    Their ratio is what the algorithm saves; the rest of the speed-up over plain PyTorch is that of the kernels.
    """
    fast = [row for row in ladder.rows if row.ms is not None and row.fast]
    pairs = [(row, _skeleton_mae_like(row, fast)) for row in fast if row.model == "amr"]
    return min(
        ((amr, mae) for amr, mae in pairs if mae is not None),
        key=lambda pair: pair[0].ms or 0.0,
        default=None,
    )


def to_json(ladder: Ladder) -> dict[str, Any]:
    """The whole ladder in plain values: ``kind``, ``environment``, sizes, ``rows``, ``ratios``, what ``flops`` are."""
    return {
        "kind": "ladder",
        "environment": ladder.environment,
        "sequences": ladder.sequences,
        "clip_shape": ladder.clip_shape,
        "architecture": ladder.architecture,
        "rows": [dataclasses.asdict(row) for row in ladder.rows],
        "ratios": ratios(ladder),
        "flops": CONVENTION,
    }


def conditions(ladder: Ladder) -> str:
    """Hardware, date and sizes in one line."""
    sizes = " x ".join(map(str, ladder.clip_shape))
    facts = ladder.environment
    return f"{facts['device_name']}, {facts['date']}, torch {facts['torch']}, {sizes} (S x T x V x C)"


def as_text(ladder: Ladder) -> str:
    """The table for a terminal, with the ratios and the reasons of rungs without a time below it."""
    return "\n".join([conditions(ladder), "", aligned(_cells(ladder)), *_notes(ladder, "  ")])


def as_markdown(ladder: Ladder) -> str:
    """The table as markdown."""
    heading = f"# One pre-training step\n\n{conditions(ladder)}\n"
    return "\n".join([heading, markdown(_cells(ladder)), *_notes(ladder, "- ")]) + "\n"


def ratio_lines(ladder: Ladder) -> list[str]:
    """The ratios of each of the library's own AMR rungs, a line each."""
    lines = []
    for entry in ratios(ladder):
        for name, text in RATIOS.items():
            value = entry[name]
            told = (
                "not measured in this run"
                if value is None
                else f"{times_text(value['times'])} ({value['against']})"
            )
            lines.append(f"{entry['rung']} against {text}: {told}")
    return lines


def memory_text(size: int | None) -> str:
    """Bytes in words."""
    if size is None:
        return "-"
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _cells(ladder: Ladder) -> list[list[str]]:
    base = _first(row for row in ladder.rows if row.name == "mae-fp32" and row.ms is not None)
    head = ["rung", *(title for title, _ in _COLUMNS)]
    rows = [[row.title, *(text(row, base) for _, text in _COLUMNS)] for row in ladder.rows]
    title, _, times = last_line(ladder).partition(": ")
    return [head, *rows, [title, times, *("" for _ in _COLUMNS[1:])]]


def last_line(ladder: Ladder) -> str:
    """How many times as fast AMR is as SkeletonMAE, both with all that the library has: the algorithm's share."""
    pair = both_fast(ladder)
    if pair is None:
        return f"{BOTH_FAST}: not measured"
    amr, mae = pair
    return f"{BOTH_FAST} ({amr.name}, {mae.name}): {_times(mae, amr)}"


def _notes(ladder: Ladder, mark: str) -> list[str]:
    lines = ["", *(f"{mark}{line}" for line in ratio_lines(ladder))]
    lines += [f"{mark}MFU: {CONVENTION}"] if any(row.mfu is not None for row in ladder.rows) else []
    missing = [row for row in ladder.rows if row.reason is not None]
    lines += [f"{mark}{row.name}: no time: {row.reason}" for row in missing]
    if ladder.environment.get("device") == "cuda":
        eager = [row for row in ladder.rows if row.ms is not None and row.graph_reason is not None]
        lines += [f"{mark}{row.name}: EAGER, not one CUDA graph: {row.graph_reason}" for row in eager]
    return lines


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _dash_or(text: Callable[[float], str], value: float | None) -> str:
    return "-" if value is None else text(value)


def _times(base: Row | None, row: Row) -> str:
    compared = _compared(base, row)
    return "-" if compared is None else times_text(compared["times"])


def _first(rows: Iterable[Row]) -> Row | None:
    return next(iter(rows), None)


def _fastest(rows: Iterable[Row]) -> Row | None:
    return min(rows, key=lambda row: row.ms or float("inf"), default=None)
