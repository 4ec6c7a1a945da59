"""Which classes a probe takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figures import figure_text, new_figure, save_figure

# Numbers fit into the cells up to so many classes.
_MOST_NUMBERS = 25


def confusion_matrix(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return ``(classes, classes)``: how many clips of each class (row) were taken for each one (column)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def draw_confusion(
    path: str | Path, counts: NDArray[np.int64], names: Sequence[str], *, title: str = ""
) -> None:
    """Draw a confusion matrix in percent of each row; classes without a test clip are left out of the rows.

    Args:
        path: the picture.
        counts: of :func:`confusion_matrix`.
        names: what the classes are called.
        title: heading; the accuracy is added.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no clip was tested.
    """
    total = int(counts.sum())
    if total == 0:
        raise ValueError("no test clip was probed, so there is no confusion matrix")
    rows = np.flatnonzero(counts.sum(axis=1)).tolist()
    columns = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    shares = 100 * counts[np.ix_(rows, columns)] / counts[rows].sum(axis=1, keepdims=True)
    cell = 0.55 if len(columns) <= _MOST_NUMBERS else 0.16
    figure = new_figure(max(5.5, cell * len(columns) + 3.4), max(4.8, cell * len(rows) + 2.6))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    small: dict[str, Any] = {"fontsize": 8 if len(columns) <= _MOST_NUMBERS else 5}
    axes.set_xticks(
        range(len(columns)),
        [figure_text(names[k]) for k in columns],
        rotation=55,
        ha="right",
        rotation_mode="anchor",
        **small,
    )
    axes.set_yticks(range(len(rows)), [f"{figure_text(names[k])} ({counts[k].sum()})" for k in rows], **small)
    if len(columns) <= _MOST_NUMBERS:
        for row, column in np.argwhere(shares >= 0.5):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{share:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="black" if share > 55 else "white",
            )
    accuracy = 100 * np.trace(counts) / total
    axes.set(xlabel="predicted class", ylabel="true class (test clips)")
    axes.set_title(
        f"{figure_text(title)}\n{accuracy:.1f} % of {total:,} test clips right".strip(), fontsize=10
    )
    figure.colorbar(image, ax=axes, shrink=0.8).set_label("share of the true class (%)")
    save_figure(figure, path)
