"""How many clips there are of each class, subject, view and split, and how long they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..packed.dataset import PackedSkeletons
from .blocks import Flags, Index

# A column with more values than this, or with more than the second number most of which occur once, names clips
# rather than groups them (choice; NTU-120 has 106 subjects).
_MOST_VALUES, _FEW_VALUES = 200, 60
_BINS = 24


def count(data: PackedSkeletons) -> dict[str, Any]:
    """Return the counts as plain values.

    ``classes``, and ``columns`` by name, are lists of ``{"name", "clips", "splits": {split: [train, test]}}``;
    ``splits`` has the sizes of the halves, the classes that a half lacks and, for each column, how many of its
    values occur in both halves; ``lengths`` are the clips' frames.
    """
    labels = data.labels.cpu().numpy()
    halves = {name: _halves(data, name) for name in data.splits}
    classes = list(range(max(len(data.label_names), int(labels.max()) + 1)))
    columns, uncounted = {}, {}
    for name, column in data.columns.items():
        values = column.cpu().numpy()
        distinct, occurs = np.unique(values, return_counts=True)
        single = len(distinct) > _FEW_VALUES and int((occurs == 1).sum()) * 2 > len(distinct)
        if len(distinct) > _MOST_VALUES or single:
            uncounted[name] = len(distinct)
        else:
            columns[name] = [_row(values == value, _text(data, name, value), halves) for value in distinct]
    return {
        "classes": [_row(labels == label, class_name(data, label), halves) for label in classes],
        "unlabelled": int((labels < 0).sum()),
        "columns": columns,
        "columns_of_many_values": uncounted,
        "splits": {name: _split(data, *masks, classes) for name, masks in halves.items()},
        "lengths": _lengths(data.clip_frames().cpu().numpy()),
        "bodies": _bodies(data),
    }


def class_name(data: PackedSkeletons, label: int) -> str:
    """Return what a class is called: its number where it has no name, ``unlabelled`` below 0."""
    if label < 0:
        return "unlabelled"
    return data.label_names[label] if label < len(data.label_names) else str(label)


def histogram(values: Index, bins: int = _BINS) -> dict[str, list[float]]:
    """Return edges and counts of a histogram of whole numbers, in steps of a whole number.

    Args:
        values: ``(n,)`` int64, at least one.
        bins: most bins.
    """
    low, high = int(values.min()), int(values.max())
    step = max(1, -(-(high - low + 1) // bins))
    edges = np.arange(low, high + step + 1, step)
    return {"edges": edges.tolist(), "counts": np.histogram(values, edges)[0].tolist()}


def _halves(data: PackedSkeletons, name: str) -> tuple[Flags, Flags]:
    split = data.splits[name]
    return split.train.cpu().numpy(), split.test.cpu().numpy()


def _row(mask: Flags, name: str, halves: dict[str, tuple[Flags, Flags]]) -> dict[str, Any]:
    return {
        "name": name,
        "clips": int(mask.sum()),
        "splits": {
            split: [int((mask & train).sum()), int((mask & test).sum())]
            for split, (train, test) in halves.items()
        },
    }


def _text(data: PackedSkeletons, column: str, value: Any) -> str:
    names = data.column_names.get(column, ())
    code = int(value) if float(value).is_integer() else -1
    return names[code] if 0 <= code < len(names) else f"{value:g}"


def _split(data: PackedSkeletons, train: Flags, test: Flags, classes: list[int]) -> dict[str, Any]:
    labels = data.labels.cpu().numpy()
    shared = {}
    for name, column in data.columns.items():
        values = column.cpu().numpy()
        both = np.intersect1d(values[train], values[test])
        shared[name] = {
            "in_both_halves": len(both[both != -1]),
            "values": len(np.unique(values[train | test])),
        }
    return {
        "train": int(train.sum()),
        "test": int(test.sum()),
        "in_neither": int((~train & ~test).sum()),
        "classes_without_training": [
            class_name(data, k)
            for k in classes
            if (labels[test] == k).any() and not (labels[train] == k).any()
        ],
        "classes_without_test": [
            class_name(data, k)
            for k in classes
            if (labels[train] == k).any() and not (labels[test] == k).any()
        ],
        "columns": shared,
    }


def _lengths(frames: Index) -> dict[str, Any]:
    quantiles = np.percentile(frames, [5, 50, 95], method="lower")
    return {
        "shortest": int(frames.min()),
        "percent_5": int(quantiles[0]),
        "median": int(quantiles[1]),
        "percent_95": int(quantiles[2]),
        "longest": int(frames.max()),
        "single_frame": int((frames == 1).sum()),
        "histogram": histogram(frames),
    }


def _bodies(data: PackedSkeletons) -> dict[str, int]:
    bodies = np.bincount(data.body_clip.cpu().numpy(), minlength=data.num_clips)
    return {str(number): int((bodies == number).sum()) for number in np.unique(bodies)}
