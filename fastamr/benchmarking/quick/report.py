"""What ``fastamr bench quick`` says: the table, the speed-ups, and the time of a whole run of NTU RGB+D 60 here."""

from __future__ import annotations

from typing import Any

from .. import ladder_report
from ..ntu_sized import PRESETS
from ..recipe import Timing, totals
from ..rungs import Ladder, Row
from ..timing import duration

RECIPE = "ntu60-xsub"
_CHECKPOINT_EVERY = 20.0


def projections(ladder: Ladder) -> list[dict[str, Any]]:
    """What the published recipe (400 epochs of NTU RGB+D 60) would take here with each of the answer's rungs.

    Args:
        ladder: what was measured.

    Returns:
        For the fastest rung of each form (the library's AMR, plain AMR, SkeletonMAE by the library and by PyTorch, and
        as released) ``rung``, ``title`` and ``totals`` (see :func:`fastamr.benchmarking.recipe.totals`): the updates
        alone, without logging and checkpoints.
    """
    timed = [row for row in ladder.rows if row.ms is not None]
    released = [row for row in timed if row.name == "mae-fp32"]
    best: dict[tuple[str, bool], Row] = {}
    for row in sorted(timed, key=lambda row: row.ms or 0.0):
        best.setdefault((row.model, row.fast), row)
    forms = [("amr", True), ("amr", False), ("skeleton_mae", True), ("skeleton_mae", False)]
    rows = [best[form] for form in forms if form in best]
    rows += [row for row in released if row not in rows]
    return [{"rung": row.name, "title": row.title, "totals": _totals(row, ladder.sequences)} for row in rows]


def _totals(row: Row, sequences: int) -> list[dict[str, Any]]:
    assert row.ms is not None
    seconds = Timing(0.0, 0.0, warmup=row.prepare_seconds or 0.0, per_update=row.ms / 1e3, checkpoint=0.0)
    return totals(PRESETS[RECIPE], seconds, sequences, checkpoint_every=_CHECKPOINT_EVERY)


def as_text(ladder: Ladder) -> str:
    """The ladder's table with its ratios, and below it the projected times."""
    lines = [ladder_report.as_text(ladder), ""]
    found = projections(ladder)
    if not found:
        return "\n".join(lines[:1])
    recipe = PRESETS[RECIPE]
    lines.append(
        f"PROJECTED, not measured: NTU RGB+D 60, cross-subject, {recipe.epochs} epochs on this machine "
        f"(times of updates alone, by the sequence)"
    )
    if ladder.architecture:
        settings = ", ".join(f"{name}={value}" for name, value in ladder.architecture.items())
        lines.append(f"  not the published model: {settings}")
    first = found[0]["totals"]
    lines.append(f"  {first[0]['what']}, or in brackets {first[1]['what']}")
    for each in found:
        whole, without = (duration(total["seconds"]) for total in each["totals"])
        lines.append(f"  {each['title']} ({each['rung']}): {whole} ({without})")
    return "\n".join(lines)


def to_json(ladder: Ladder) -> dict[str, Any]:
    """The ladder in plain values, as of ``fastamr bench ladder``, with ``kind`` ``quick`` and ``projections``."""
    return {**ladder_report.to_json(ladder), "kind": "quick", "projections": projections(ladder)}
