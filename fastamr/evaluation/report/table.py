"""The comparison as aligned text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...tables import aligned, mean_text

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
    return aligned(lines)


def title(name: str) -> str:
    """Return what the column of a probe is called."""
    share = name.removeprefix("semi_")
    return TITLES.get(name, name) if share == name else f"{share} % labels"


def _cell(score: Mapping[str, Any] | None) -> str:
    return "-" if score is None else mean_text(score["per_seed"], "+-")
