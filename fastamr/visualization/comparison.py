"""Loss curves and probe accuracies of several encoders, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .figures import LINES, MARKERS, figure_text, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Readable without colour: each series also has a line style and a marker, each kind of bar a hatch.
_HATCHES = ("", "///", "...", "xxx")


class Curve(NamedTuple):
    """A loss curve.

    Attributes:
        epochs: where the loss was read, in epochs or another unit.
        losses: its values.
    """

    epochs: Sequence[float]
    losses: Sequence[float]


def draw_comparison(
    path: str | Path,
    curves: Mapping[str, Curve],
    accuracies: Mapping[str, Mapping[str, float]],
    *,
    title: str = "",
    axis: str = "epoch",
) -> None:
    """Draw loss curves on the left and accuracy bars on the right, and write the figure in one piece.

    The losses of different methods have different targets; each is shown as a share of its first value.

    Args:
        path: the picture, ``.png`` or ``.svg``.
        curves: loss curves by method.
        accuracies: per encoder the accuracy in percent by probe, ``{"AMR": {"1-NN": 80.1, "linear": 85.0}}``.
        title: heading of the figure.
        axis: what the curves are drawn over.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    _draw_curves(left, curves, axis)
    _draw_bars(right, accuracies)
    if title:
        figure.suptitle(figure_text(title))
    save_figure(figure, path)


def _draw_curves(axes: Axes, curves: Mapping[str, Curve], axis: str) -> None:
    for (name, curve), line, marker in zip(curves.items(), LINES, MARKERS, strict=False):
        share = [loss / curve.losses[0] for loss in curve.losses]
        every = max(1, len(share) // 8)
        axes.plot(
            curve.epochs,
            share,
            linestyle=line,
            marker=marker,
            markevery=every,
            markersize=5,
            label=figure_text(name),
        )
    axes.set(xlabel=figure_text(axis), ylabel="loss / first loss", title="pre-training loss")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()


def _draw_bars(axes: Axes, accuracies: Mapping[str, Mapping[str, float]]) -> None:
    probes = list(dict.fromkeys(probe for values in accuracies.values() for probe in values))
    width = 0.8 / max(len(probes), 1)
    for index, probe in enumerate(probes):
        places = [row + (index - (len(probes) - 1) / 2) * width for row in range(len(accuracies))]
        heights = [values.get(probe, 0.0) for values in accuracies.values()]
        bars: Any = axes.bar(
            places,
            heights,
            width * 0.92,
            label=figure_text(probe),
            hatch=_HATCHES[index % 4],
            edgecolor="black",
        )
        axes.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    axes.set_xticks(range(len(accuracies)), [figure_text(name).replace(" ", "\n") for name in accuracies])
    axes.set(ylabel="test accuracy (%)", ylim=(0, 108), title="probes of the frozen encoder")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if probes:
        axes.legend(loc="upper left")
