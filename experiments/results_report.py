"""The markdown tables of experiments/results.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from fastamr import tables

PROBES = {
    "linear": "linear",
    "linear_ntu": "linear, 15,700",
    "logistic": "logistic",
    "knn_1": "1-NN",
    "knn_20": "20-NN",
}
ROWS = {
    "raw": "raw coordinates",
    "input": "encoder's input",
    "random": "random encoder",
    "random_asma": "random encoder of ASMa",
    "random_slim": "random encoder of SLiM",
    "skeleton_mae": "SkeletonMAE",
    "mamp": "MAMP",
    "gfp": "GFP",
    "asma": "ASMa",
    "slim": "SLiM",
    "amr": "AMR",
}
Record = Mapping[str, Any]


def markdown(records: Sequence[Record]) -> str:
    """Return one table for each data set and split: mean and deviation over the seeds, the gain of AMR under it.

    Args:
        records: lines of the results file; of runs with the same name the last one counts.
    """
    latest = {
        (one["set"], one["method"], one["variant"], one["seed"], tuple(one["results"])): one
        for one in records
    }
    sets = list(dict.fromkeys(one["set"] for one in records))
    return "\n\n".join(
        table
        for chosen in sets
        for table in _set_tables(chosen, [one for one in latest.values() if one["set"] == chosen])
    )


def _set_tables(chosen: str, records: Sequence[Record]) -> Iterable[str]:
    splits = list(dict.fromkeys(split for one in records for split in one["results"]))
    if chosen == "sbu_interaction":
        records, splits = _over_folds(records), ["mean of the folds"]
    for split in splits:
        yield _table(chosen, split, [one for one in records if split in one["results"]])


def _over_folds(records: Sequence[Record]) -> list[Record]:
    """One record for a method and seed, the mean of its folds; those with a fold missing are left out."""
    folds = {split for one in records for split in one["results"]}
    found: list[Record] = []
    for identity in dict.fromkeys((one["method"], one["variant"], one["seed"]) for one in records):
        group = [one for one in records if (one["method"], one["variant"], one["seed"]) == identity]
        if {split for one in group for split in one["results"]} != folds:
            continue
        folded = [scores for one in group for scores in one["results"].values()]
        scores = {
            probe: {"accuracy": fmean([one[probe]["accuracy"] for one in folded])}
            for probe in PROBES
            if all(one.get(probe) for one in folded)
        }
        seconds = {"seconds": sum(one["seconds"] for one in group)} if "seconds" in group[0] else {}
        updates = {"updates": group[0]["updates"]} if "updates" in group[0] else {}
        found.append({**group[0], **seconds, **updates, "results": {"mean of the folds": scores}})
    return found


# Variants of AMR that are held against the other methods: as many updates, and about as much time, as SkeletonMAE.
_COMPARED = ("", "2400 updates")


def _table(chosen: str, split: str, records: Sequence[Record]) -> str:
    lines = [
        f"**{chosen}**, {split} (percent, mean ± deviation over the seeds)",
        "",
        "```sh",
        "python experiments/results.py --data ../shared/data --out results.jsonl "
        f"--only {chosen} {_options(records)}",
        "```",
        "",
    ]
    rows = [["encoder", "seeds", *PROBES.values(), "updates", "seconds a run"]]
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    order = {name: place for place, name in enumerate(ROWS)}
    found = dict.fromkeys((one["method"], one["variant"]) for one in records)
    identities = sorted(found, key=lambda one: order[one[0]])
    for method, variant in identities:
        group = [one for one in records if (one["method"], one["variant"]) == (method, variant)]
        scores = {
            probe: [
                one["results"][split][probe]["accuracy"] for one in group if one["results"][split].get(probe)
            ]
            for probe in PROBES
        }
        cells[method, variant] = scores
        label = f"{ROWS[method]} (`{method}`)" + (f", `{variant}`" if variant else "")
        trained = [one for one in group if "seconds" in one]
        cost = (
            [str(trained[0]["updates"]), f"{fmean([one['seconds'] for one in trained]):.0f}"]
            if trained
            else ["", ""]
        )
        rows.append([label, str(len(group)), *(_cell(scores[probe], len(group)) for probe in PROBES), *cost])
    gains = [_gain(cells, variant, other) for variant in _COMPARED for other in ("skeleton_mae", "random")]
    return "\n".join([*lines, tables.markdown(rows), *(["", *filter(None, gains)] if any(gains) else [])])


def _options(records: Sequence[Record]) -> str:
    """The rest of the command that makes a row, with what the row names in capitals."""
    seeds = " ".join(map(str, sorted({one["seed"] for one in records})))
    varied = " --variants 'VARIANT'" if any(one["variant"] for one in records) else ""
    return f"--methods METHOD{varied} --seeds {seeds}"


def _gain(cells: Mapping[tuple[str, str], Mapping[str, list[float]]], variant: str, other: str) -> str:
    """AMR's gain in points, and whether it is larger than both spreads together."""
    if ("amr", variant) not in cells or (other, "") not in cells:
        return ""
    parts = []
    for probe, title in PROBES.items():
        ours, theirs = cells["amr", variant][probe], cells[other, ""][probe]
        if not ours or not theirs:
            continue
        gain = fmean(ours) - fmean(theirs)
        noise = sum(tables.deviation(values) or 0.0 for values in (ours, theirs))
        known = len(ours) > 1 and len(theirs) > 1
        verdict = "" if not known else (", beyond the spread" if abs(gain) > noise else ", within the spread")
        parts.append(f"{title} {gain:+.1f}{verdict}")
    return f"AMR{', ' if variant else ''}{variant} against {ROWS[other]}: " + "; ".join(parts) + ".  "


def _cell(values: Sequence[float], seeds: int) -> str:
    """Mean and deviation, and of how many seeds where a probe was not run for all; a dash for none."""
    if not values:
        return "-"
    return tables.mean_text(values) + (f" (of {len(values)})" if len(values) < seeds else "")
