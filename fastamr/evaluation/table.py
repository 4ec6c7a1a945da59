"""The comparison as aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {
    "knn_1": "1-NN",
    "knn_20": "20-NN",
    "map": "mAP",
    "linear": "linear",
    "logistic": "logistic",
    "finetune": "fine-tune",
}


def format_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return accuracies in percent as a table, one line an encoder.

    Args:
        rows: scores (see :func:`fastamr.evaluation.probe_features`) by what the line is called. Several seeds
            show as mean and standard deviation; a probe that could not run as ``-``.
    """
    present = dict.fromkeys(name for scores in rows.values() for name in scores)
    probes = [name for name in TITLES if name in present] + [name for name in present if name not in TITLES]
    lines = [["encoder", *(_title(name) for name in probes)]]
    lines += [[label, *(_cell(scores.get(name)) for name in probes)] for label, scores in rows.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(probes) + 1)]
    return "\n".join(_line(line, widths) for line in lines)


def _title(name: str) -> str:
    share = name.removeprefix("semi_")
    return TITLES.get(name, name) if share == name else f"{share} % labels"


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    values = score["per_seed"]
    if len(values) == 1:
        return f"{score['accuracy']:.1f}"
    mean = score["accuracy"]
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f"{mean:.1f} +- {deviation:.1f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    return first.ljust(widths[0]) + "".join(
        "  " + cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
    )
