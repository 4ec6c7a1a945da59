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
    "frame_map": "frame mAP",
    "map_a": "mAP_a",
    "map_v": "mAP_v",
    "frame_accuracy": "frames right",
}


def format_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return accuracies in percent as a table, one line an encoder.

    Args:
        rows: scores (see :func:`fastamr.evaluation.probe_features`) by what the line is called. Several seeds
            show as mean and standard deviation; a probe that could not run as ``-``.
    """
    present = dict.fromkeys(name for scores in rows.values() for name in scores)
    probes = [name for name in TITLES if name in present] + [name for name in present if name not in TITLES]
    lines = [["encoder", *(title(name) for name in probes)]]
    lines += [[label, *(_cell(scores.get(name)) for name in probes)] for label, scores in rows.items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(probes) + 1)]
    return "\n".join(_line(line, widths) for line in lines)


def title(name: str) -> str:
    """Return what the column of a probe is called."""
    share = name.removeprefix("semi_")
    return TITLES.get(name, name) if share == name else f"{share} % labels"


def deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation of the seeds' values (with n - 1); None for a single one."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def _cell(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    spread = deviation(score["per_seed"])
    return f"{score['accuracy']:.1f}" + ("" if spread is None else f" +- {spread:.1f}")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    return first.ljust(widths[0]) + "".join(
        "  " + cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
    )
