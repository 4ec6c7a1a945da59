"""Features in two dimensions, by principal components or t-SNE, with a colour and a marker for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import check_name
from .figures import MARKERS, colour_map, figure_text, new_figure, save_figure

METHODS = ("pca", "tsne")


def project(
    features: NDArray[np.floating], method: str, *, seed: int = 0
) -> tuple[NDArray[np.float64], list[str]]:
    """Bring features to two dimensions.

    Args:
        features: ``(N, D)``.
        method: ``"pca"``, the first two principal components; ``"tsne"``, t-SNE started from them (scikit-learn,
            perplexity 30 or a third of the clips, whichever is less).
        seed: of t-SNE.

    Returns:
        ``(N, 2)``, and the names of the axes.

    Raises:
        ValueError: an unknown method, or fewer than 5 clips.
        ImportError: t-SNE without scikit-learn.
    """
    check_name("method", method, METHODS)
    if len(features) < 5:
        raise ValueError(f"an embedding of {len(features)} clips shows nothing: expected at least 5")
    x = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    if method == "pca":
        left, values, _ = np.linalg.svd(x, full_matrices=False)
        share = values**2 / max(float((values**2).sum()), 1e-300)
        names = [f"principal component {k + 1} ({100 * share[k]:.1f} % of the variance)" for k in (0, 1)]
        return left[:, :2] * values[:2], names
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError("t-SNE needs scikit-learn: pip install 'fastamr[eval]'") from error
    perplexity = min(30.0, (len(x) - 1) / 3)
    placed = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(x)
    return placed, ["t-SNE 1 (no unit)", "t-SNE 2 (no unit)"]


def draw_embedding(
    path: str | Path,
    points: NDArray[np.floating],
    labels: NDArray[np.int64],
    names: Sequence[str],
    axes_names: Sequence[str],
    *,
    test: NDArray[np.bool_] | None = None,
    title: str = "",
) -> None:
    """Draw clips as points; each class has a colour, a marker, and its number at its middle.

    Args:
        path: the picture.
        points: ``(N, 2)``.
        labels: ``(N,)`` classes, -1 = unknown.
        names: what the classes are called.
        axes_names: of :func:`project`.
        test: ``(N,)`` bool: drawn with a dark edge, the others pale; None = all alike.
        title: heading.

    Raises:
        ImportError: matplotlib is not installed.
    """
    classes = [int(label) for label in np.unique(labels)]
    columns = max(1, -(-len(classes) // 22))
    figure = new_figure(8.0 + 2.2 * columns, 6.6)
    axes = figure.subplots()
    colours = colour_map("tab20")
    for place, label in enumerate(classes):
        chosen = labels == label
        style: dict[str, Any] = {
            "marker": MARKERS[place % len(MARKERS)],
            "color": "#999999" if label < 0 else colours(place % 20),
        }
        name = names[label] if 0 <= label < len(names) else "unlabelled" if label < 0 else f"class {label}"
        halves = (
            [(chosen, 1.0, 0.4)] if test is None else [(chosen & ~test, 0.35, 0.0), (chosen & test, 1.0, 0.7)]
        )
        for rows, alpha, edge in halves:
            axes.scatter(
                points[rows, 0],
                points[rows, 1],
                s=22,
                alpha=alpha,
                linewidths=edge,
                edgecolors="black",
                **style,
            )
        axes.scatter([], [], s=32, label=figure_text(f"{label}: {name}" if label >= 0 else name), **style)
        x, y = np.median(points[chosen], axis=0)
        box: dict[str, Any] = {
            "boxstyle": "round,pad=0.15",
            "facecolor": "white",
            "edgecolor": "black",
            "linewidth": 0.6,
            "alpha": 0.85,
        }
        axes.text(x, y, str(label) if label >= 0 else "?", ha="center", va="center", fontsize=8, bbox=box)
    axes.set(xlabel=axes_names[0], ylabel=axes_names[1], title=figure_text(title))
    axes.grid(alpha=0.3)
    note = "" if test is None else " (dark edge: test, pale: training)"
    figure.legend(
        loc="outside right center", ncols=columns, fontsize=8, title=f"number: class{note}", title_fontsize=8
    )
    save_figure(figure, path)
