"""The charts of the benchmarks: bars of the ladder, curves of the scaling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..tables import times_text
from ..visualization.figures import COLOURS, LINES, MARKERS, new_figure, save_figure
from .ladder import Ladder, Row
from .ladder_report import conditions

ENDINGS = ("png", "svg")

# Colour and hatch of both models in plain PyTorch and by the library's own step.
_KINDS = {
    "SkeletonMAE, plain PyTorch": (COLOURS[4], "///"),
    "AMR, plain PyTorch": (COLOURS[5], "..."),
    "AMR, fastamr": (COLOURS[0], ""),
    "SkeletonMAE, fastamr": (COLOURS[1], "xx"),
}
_AXES = {
    "sequences": "S, sequences",
    "frames": "T, frames",
    "joints": "V, joints",
    "visible": "K, visible tokens",
    "depth": "encoder blocks",
    "width": "D, width",
}


def draw_ladder(path: str | Path, ladder: Ladder) -> None:
    """Draw the measured rungs as bars over a linear axis from 0, each with its time and speed-up.

    Args:
        path: the picture, ``.png``, ``.svg`` or ``.pdf``.
        ladder: what was measured.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no rung has a time.
    """
    rows = [row for row in ladder.rows if row.ms is not None]
    if not rows:
        raise ValueError("no rung of the ladder has a time, so there is nothing to draw: see the reasons")
    figure = new_figure(10, 2.2 + 0.42 * len(rows))
    axes = figure.subplots()
    base = next((row.ms for row in rows if row.released and row.name == "mae-fp32"), None)
    for place, row in enumerate(rows):
        colour, hatch = _KINDS[_kind(row)]
        axes.barh(place, row.ms or 0.0, color=colour, hatch=hatch, edgecolor="black", linewidth=0.6)
        faster = "" if base is None or row.ms is None else f"   {times_text(base / row.ms)}"
        axes.annotate(
            f"{_milliseconds(row.ms or 0.0)}{faster}",
            (row.ms or 0.0, place),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            fontsize=9,
        )
    axes.set_xlim(0, 1.25 * max(row.ms or 0.0 for row in rows))  # room for the longest bar's text
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of one update")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    _add_key(axes, [kind for kind in _KINDS if kind in {_kind(row) for row in rows}])
    figure.suptitle("One pre-training step: forward, backward, AdamW", fontsize=12)
    axes.set_title(conditions(ladder), fontsize=8)
    save_figure(figure, path)


def draw_scaling(path: str | Path, curves: dict[str, Sequence[Any]], *, title: str, subtitle: str) -> None:
    """Draw the step time against each size, with the limit beside it, both axes logarithmic.

    Args:
        path: the picture.
        curves: for each size that was varied its points, each with ``value``, ``ms`` (or None) and ``limit_ms``.
        title: heading.
        subtitle: hardware, date and sizes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure = new_figure(4.2 * columns, 0.9 + 3.2 * lines)
    panels = figure.subplots(lines, columns, squeeze=False)
    for place, (name, points) in enumerate(curves.items()):
        _draw_curve(panels[place // columns][place % columns], name, points)
    for place in range(len(curves), lines * columns):
        panels[place // columns][place % columns].set_visible(False)
    figure.suptitle(f"{title}\n{subtitle}", fontsize=10)
    save_figure(figure, path)


def _draw_curve(axes: Any, name: str, points: Sequence[Any]) -> None:
    measured = [(point.value, point.ms) for point in points if point.ms is not None]
    limits = [(point.value, point.limit_ms) for point in points]
    for series, style, label in ((measured, 0, "measured"), (limits, 1, "limit")):
        if not series:
            continue
        x, y = zip(*series, strict=True)
        axes.plot(x, y, color=COLOURS[style], linestyle=LINES[style], marker=MARKERS[style], markersize=4)
        axes.annotate(
            label, (x[-1], y[-1]), textcoords="offset points", xytext=(-4, 6), ha="right", fontsize=8
        )
    axes.set(xscale="log", yscale="log", xlabel=_AXES[name], ylabel="milliseconds of one update")
    values = [point.value for point in points]
    axes.set_xticks(values, [str(value) for value in values], fontsize=8)
    axes.set_xticks([], minor=True)
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks("{x:g}")
    axes.tick_params(axis="y", which="both", labelsize=8)
    axes.margins(x=0.08, y=0.15)
    axes.grid(alpha=0.3, which="both")


def _add_key(axes: Any, kinds: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=_KINDS[kind][0], hatch=_KINDS[kind][1], edgecolor="black", label=kind)
        for kind in kinds
    ]
    axes.legend(
        handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(patches), fontsize=8
    )


def _kind(row: Row) -> str:
    model = "AMR" if row.model == "amr" else "SkeletonMAE"
    return f"{model}, {'fastamr' if row.fast else 'plain PyTorch'}"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
