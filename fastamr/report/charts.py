"""The drawings of a report: curves, bars, a confusion matrix and points, each small enough for a phone.

What curves stand for is named beside the drawing, in HTML, where long names wrap; a drawing holds numbers and
fixed words.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..pages import Chart, Key
from ..pages.svg import INK, inline_svg
from ..visualization.figures import COLOURS, LINES, MARKERS, figure_text, new_figure
from .runs import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = 28
"""Curves of a chart that colour and line tell apart."""

_MOST_POINTS = 400
_FARTHEST = 1e30
_LONGEST_NAME = 64
_COLOURS = tuple(colour for colour in COLOURS if colour != "#000000")
_DASHES = {"-": "", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fastamr",
    "text.usetex": False,
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}
_numbers = itertools.count(1)


@contextmanager
def _style() -> Iterator[None]:
    """Draw in the page's ink, on its paper; letters that matplotlib's font lacks are the browser's."""
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def _inline(figure: Figure) -> str:
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, dpi=200, metadata=nothing)
    # XML has no U+FFFE and U+FFFF.
    return inline_svg(re.sub("[\ufffe\uffff]", "\ufffd", text.getvalue()), f"d{next(_numbers)}-")


def draw_curves(
    title: str, curves: Sequence[Curve], names: Sequence[str], label: str, *, from_zero: bool = False
) -> Chart:
    """Draw values over epochs.

    Args:
        title: of the chart.
        curves: at most :data:`MOST_CURVES` of them are drawn.
        names: what each is called.
        label: of the values' axis, with the unit.
        from_zero: let that axis begin at 0.

    Raises:
        ImportError: matplotlib is not installed.
    """
    shown = list(curves)[:MOST_CURVES]
    notes = [f"{len(curves) - len(shown)} more are not drawn"] if len(curves) > len(shown) else []
    left_out = 0
    with _style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for place, curve in enumerate(shown):
            x, y = np.array(curve.x), np.array(curve.y)
            sound = np.isfinite(x) & np.isfinite(y) & (np.abs(y) < _FARTHEST)
            left_out += int((~sound).sum())
            x, y = _thinned(x[sound], y[sound])
            axes.plot(
                x, y, color=_colour(place), linestyle=_line(place), linewidth=1.5,
                marker=MARKERS[place % len(MARKERS)], markersize=3.5, markevery=max(1, len(x) // 8),
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel=label)
        if from_zero:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25, linewidth=0.5)
        svg = _inline(figure)
    if left_out:
        notes.append(f"{left_out} values that are not finite are not drawn")
    keys = [Key(name, _line_sample(place)) for place, name in enumerate(names[:MOST_CURVES])]
    about = f"{title}: {label} over epochs of {', '.join(names[:MOST_CURVES])}"
    return Chart(title, svg, keys, "; ".join(notes), about)


def _thinned(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve of few points: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(x) <= _MOST_POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for stretch in np.array_split(np.arange(len(x)), _MOST_POINTS // 2):
        kept |= {int(stretch[y[stretch].argmin()]), int(stretch[y[stretch].argmax()])}
    places = sorted(kept)
    return x[places], y[places]


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _line(place: int) -> str:
    return LINES[place % len(LINES)]


def _line_sample(place: int) -> str:
    dashes = _DASHES[_line(place)]
    return (
        f'<svg viewBox="0 0 32 14" aria-hidden="true"><line x1="1" y1="7" x2="31" y2="7" stroke="{_colour(place)}" '
        f'stroke-width="2.5" stroke-dasharray="{dashes or "none"}"/></svg>'
    )


def _dot_sample(colour: str) -> str:
    rectangle = f'<rect x="4" y="1" width="24" height="12" fill="{colour}"/>'
    return f'<svg viewBox="0 0 32 14" aria-hidden="true">{rectangle}</svg>'


def draw_bars(
    title: str,
    groups: Sequence[tuple[str, Sequence[tuple[str, float]]]],
    label: str,
    told: Callable[[float], str],
    note: str = "",
) -> Chart:
    """Draw bars, with what each group is called above its bars.

    Args:
        title: of the chart.
        groups: names, each with its bars: what the bar is of, and its value.
        label: of the values' axis, with the unit.
        told: the value as text.
        note: a line below.

    Raises:
        ImportError: matplotlib is not installed.
    """
    kinds = list(dict.fromkeys(kind for _, bars in groups for kind, _ in bars))
    most = max((value for _, bars in groups for _, value in bars), default=1.0)
    places, place = [], 0.0
    for _, bars in groups:
        places.append(place)
        place += 0.75 + 0.75 * len(bars)
    with _style():
        figure = new_figure(5.4, 0.7 + 0.26 * place)
        axes = figure.subplots()
        for start, (name, bars) in zip(places, groups, strict=True):
            shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
            axes.text(0, start, figure_text(shown), va="center", ha="left").set_in_layout(False)
            for step, (kind, value) in enumerate(bars, 1):
                at = start + 0.75 * step - 0.1
                axes.barh(at, value, height=0.6, color=_colour(kinds.index(kind)), linewidth=0)
                axes.annotate(
                    told(value), (value, at), textcoords="offset points", xytext=(4, 0), va="center"
                )
        axes.set_xlim(0, 1.25 * most or 1.0)
        axes.set_ylim(place - 0.3, -0.5)
        axes.set_yticks([])
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.25, linewidth=0.5)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        svg = _inline(figure)
    keys = [Key(kind, _dot_sample(_colour(number))) for number, kind in enumerate(kinds)]
    return Chart(title, svg, keys if len(kinds) > 1 else (), note, wide=True)


def draw_confusion(title: str, counts: NDArray[np.int64], note: str) -> Chart:
    """Draw a confusion matrix in percent of each true class; classes go by their numbers.

    Args:
        title: of the chart.
        counts: ``(classes, classes)``, true classes in rows.
        note: a line below.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.where(rows > 0, 100 * counts / np.maximum(rows, 1), np.nan)
    many = len(counts) > 12
    with _style():
        figure = new_figure(5.0, 4.3)
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
        for row, column in [] if many else np.argwhere(shares >= 0.5):
            share = shares[row, column]
            colour = "black" if share > 55 else "white"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour)
        step = max(1, len(counts) // 12)
        ticks = np.arange(0, len(counts), step)
        axes.set(xticks=ticks, yticks=ticks, xlabel="predicted class", ylabel="true class")
        figure.colorbar(image, ax=axes, shrink=0.8).set_label("share of the true class (%)")
        svg = _inline(figure)
    return Chart(title, svg, (), note)


def draw_points(
    title: str, points: NDArray[np.floating], labels: NDArray[np.int64], names: Sequence[str], axes_names: Any
) -> Chart:
    """Draw clips as points, with the number of each class at its middle.

    Args:
        title: of the chart.
        points: ``(N, 2)``.
        labels: ``(N,)`` classes, -1 = unknown.
        names: what the classes are called.
        axes_names: of both axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from ..visualization.figures import colour_map

    colours, classes = colour_map("tab20"), [int(label) for label in np.unique(labels)]
    keys = []
    with _style():
        from matplotlib.colors import to_hex

        figure = new_figure(5.0, 4.3)
        axes = figure.subplots()
        for place, label in enumerate(classes):
            chosen = labels == label
            colour = "#999999" if label < 0 else to_hex(colours(place % 20))
            marker = MARKERS[place % len(MARKERS)]
            axes.scatter(
                points[chosen, 0], points[chosen, 1], s=24, color=colour, marker=marker, linewidths=0
            )
            x, y = np.median(points[chosen], axis=0)
            axes.text(x, y, str(label) if label >= 0 else "?", ha="center", va="center", fontweight="bold")
            name = names[label] if 0 <= label < len(names) else "unlabelled"
            keys.append(Key(f"{label}: {name}" if label >= 0 else name, _dot_sample(colour)))
        axes.set(xlabel=axes_names[0], ylabel=axes_names[1])
        axes.grid(alpha=0.25, linewidth=0.5)
        svg = _inline(figure)
    return Chart(title, svg, keys)
