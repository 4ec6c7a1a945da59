"""The markdown tables of experiments/any_skeleton.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from fastamr import tables

PROBES = {"linear": "linear", "logistic": "logistic", "knn_1": "1-NN"}
ROWS = {
    "raw": "raw coordinates",
    "raw_first": "raw coordinates, first frame centred",
    "raw_every": "raw coordinates, every frame centred, and path",
    "random": "random encoder",
    "skeleton_mae_alone": "SkeletonMAE on this set alone",
    "amr_alone": "AMR on this set alone",
    "amr_body_mixture": "AMR `body` on the mixture",
    "amr_body_unseen": "AMR `body`, this set unseen",
}
# What a row of AMR `body` has to be above, beyond the spread.
_OURS, _OTHERS = (
    ("amr_body_mixture", "amr_body_unseen"),
    ("raw", "raw_first", "raw_every", "skeleton_mae_alone"),
)
Record = Mapping[str, Any]


def markdown(records: Sequence[Record]) -> str:
    """Return a table for each table of the plan, set and tested split; folds are averaged for each seed.

    Args:
        records: lines of the results; of runs with the same name the last one counts.
    """
    latest = {tuple(one[name] for name in ("table", "set", "row", "variant", "seed")): one for one in records}
    groups: dict[tuple[str, str, str], list[tuple[Record, Mapping[str, Any]]]] = {}
    for one in latest.values():
        for split, scores in over_folds(one["results"]).items():
            groups.setdefault((one["table"], one["set"], split), []).append((one, scores))
    return "\n\n".join(_table(*place, found) for place, found in groups.items())


def over_folds(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results with the mean of splits named ``fold...`` under ``folds``, by pooling and probe."""
    folds = [scores for split, scores in results.items() if split.startswith("fold")]
    found = {split: scores for split, scores in results.items() if not split.startswith("fold")}
    if folds:
        found["folds"] = {
            pooling: {probe: fmean([one[pooling][probe] for one in folds]) for probe in scores}
            for pooling, scores in folds[0].items()
        }
    return found


def _table(table: str, chosen: str, split: str, found: Sequence[tuple[Record, Mapping[str, Any]]]) -> str:
    to_reach = found[0][0]["plan"].get("to_reach", {}).get(split, "") if table == "main" else ""
    rows = [["encoder", "pooling", "seeds", *PROBES.values(), "updates", "minutes", "to reach"]]
    cells: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row, variant in dict.fromkeys((one["row"], one["variant"]) for one, _ in found):
        group = [(one, scores) for one, scores in found if (one["row"], one["variant"]) == (row, variant)]
        for pooling in dict.fromkeys(pooling for _, scores in group for pooling in scores):
            values = {
                probe: [scores[pooling][probe] for _, scores in group if pooling in scores]
                for probe in PROBES
            }
            cells[row, variant, pooling] = values
            counted = str(len(values["linear"]))
            shown = [tables.mean_text(one) for one in values.values()]
            label = ROWS.get(row, row) + (f", {variant}" if variant else "")
            rows.append([label, pooling, counted, *shown, *_cost(group), to_reach])
    title = f"**{chosen}**, {split}, {table} (percent, mean ± deviation over the seeds)"
    verdicts = [_verdict(cells, place) for place in cells if place[0] in _OURS and table == "main"]
    return "\n".join([title, "", tables.markdown(rows), *(["", *verdicts] if verdicts else [])])


def _cost(group: Sequence[tuple[Record, Any]]) -> list[str]:
    """Return updates and minutes of the pre-training; of a split's encoders the mean."""
    trained = [one for record, _ in group for one in record["pretraining"].values() if "updates" in one]
    if not trained:
        return ["", ""]
    updates = sorted({one["updates"] for one in trained})
    text = str(updates[0]) if len(updates) == 1 else f"{updates[0]} to {updates[-1]}"
    return [text, f"{fmean([one['seconds'] for one in trained]) / 60:.1f}"]


def _verdict(
    cells: Mapping[tuple[str, str, str], Mapping[str, list[float]]], place: tuple[str, str, str]
) -> str:
    """Return how far a row is above the best of the other rows, by probe, and whether beyond both spreads together."""
    row, variant, pooling = place
    parts = []
    for probe, title in PROBES.items():
        ours = cells[place][probe]
        # Coordinates have no budget, and an encoder is compared at its own pooling and budget.
        rivals = {
            other: cells[other][probe]
            for other in cells
            if other[0] in _OTHERS and other[1] in ("", variant) and other[2] in ("", pooling)
        }
        if not rivals:
            continue
        best = max(rivals, key=lambda other: fmean(rivals[other]))
        gain = fmean(ours) - fmean(rivals[best])
        noise = sum(tables.deviation(values) or 0.0 for values in (ours, rivals[best]))
        verdict = "" if len(ours) < 2 else f", {'beyond' if abs(gain) > noise else 'within'} the spread"
        parts.append(f"{title} {gain:+.1f} ({ROWS[best[0]]}){verdict}")
    name = f"{ROWS[row]}, {', '.join(filter(None, (variant, pooling)))}"
    return f"{name}, against the best of raw coordinates and SkeletonMAE: " + "; ".join(parts) + ".  "
