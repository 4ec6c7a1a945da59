"""A clip as a strip of frames, side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import check_folder_of
from .animation import add_scale_bar, frame_text
from .clip import Clip, Floats, Overlay, Traces
from .figures import COLOURS, LINES, figure_text, new_figure, picture_format, save_figure, text_size
from .skeleton_drawing import Stage

_MOST_COLUMNS = 8
# Inches: tallest and, where the width is given, lowest panel; room beside, between and around them.
_TALLEST, _LOWEST, _AXES, _GAP, _EDGE, _SCALE, _TRACES = 2.5, 0.9, 0.75, 0.1, 0.08, 0.8, 1.7
_MOST_WIDE = 3.5


class _Panels(NamedTuple):
    """Where the frames are drawn.

    Attributes:
        rows: places of the frames in each row.
        inches: of one unit of the coordinates.
        widths: of each panel, inches.
        height: of each panel, inches.
    """

    rows: list[list[int]]
    inches: float
    widths: list[float]
    height: float


def draw_strip(
    path: str | Path,
    clip: Clip,
    overlay: Overlay | None = None,
    *,
    frames: int = 8,
    unit: str | None = None,
    traces: Traces | None = None,
    width: float | None = None,
    **view: Any,
) -> None:
    """Write frames at even distances as one picture.

    All panels have one scale and one height, and each is as wide as the bodies in it, so that they fill it; where a
    body stands is not shown. The arrows beside the first one are the axes.

    Args:
        path: ``.png``, ``.svg`` or ``.pdf``.
        clip: the clip.
        overlay: what is laid over the joints.
        frames: how many are shown.
        unit: of the coordinates, for the axes; "" = none, None = the clip's.
        traces: curves to draw below the strip.
        width: of the picture, inches; None = what panels of 2.5 inches need.
        view: options of :class:`~fastamr.visualization.skeleton_drawing.Stage`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: another ending, no frame asked for, or nothing to draw.
        FileNotFoundError: no folder to write into.
    """
    picture_format(path)
    check_folder_of(path)
    save_figure(
        strip_figure(clip, overlay, frames=frames, unit=unit, traces=traces, width=width, **view), path
    )


def strip_figure(
    clip: Clip,
    overlay: Overlay | None = None,
    *,
    frames: int = 8,
    unit: str | None = None,
    traces: Traces | None = None,
    width: float | None = None,
    **view: Any,
) -> Any:
    """Return the figure of :func:`draw_strip`; its panels are called ``frame 0``, ``frame 7``, ..."""
    if frames < 1:
        raise ValueError(f"frames={frames} must be at least 1")
    shown = np.unique(np.linspace(0, len(clip.coords) - 1, frames).round().astype(int)).tolist()
    stage = Stage(clip, overlay, flat=True, **view)
    boxes = [_box(stage, frame) for frame in shown]
    low, high = min(box[0][1] for box in boxes), max(box[1][1] for box in boxes)
    size = 8.0 if width is None or width > 5 else 6.0
    titles = [frame_text(clip, frame).replace(", ", "\n") for frame in shown]
    narrowest = [text_size(title, size)[0] + 0.05 for title in titles]
    beside = _AXES + 2 * _EDGE + (_SCALE if overlay is not None and overlay.kind == "values" else 0.0)
    panels = _arrange([box[1][0] - box[0][0] for box in boxes], high - low, narrowest, width, beside)
    widest = max(sum(panels.widths[place] + _GAP for place in row) for row in panels.rows)
    across = width or max(beside + widest, 4.0)
    heading = "\n".join(_heading(stage, across, size + 1))
    handles = stage.legend()
    above = text_size(heading, size + 1)[1] + 0.1
    over = text_size(titles[0], size)[1] + 0.06
    columns = max(1, min(len(handles), int(across / 1.25)))
    legend = -(-len(handles) // columns) * (size / 72 * 1.5) + 0.12 if handles else 0.0
    below = legend + (0.0 if traces is None else _trace_grid(traces, across)[1] * (_TRACES + 0.7))
    tall = above + below + len(panels.rows) * (panels.height + over + 0.06)
    figure = new_figure(across, tall)
    figure.set_layout_engine("none")
    figure.text(0.5, 1 - 0.04 / tall, heading, ha="center", va="top", fontsize=size + 1)
    for number, row in enumerate(panels.rows):
        bottom = tall - above - (number + 1) * (panels.height + over + 0.06)
        left = _EDGE + _AXES
        for place in row:
            middle = (boxes[place][0][0] + boxes[place][1][0]) / 2
            half = panels.widths[place] / panels.inches / 2
            axes: Any = figure.add_axes(
                (left / across, bottom / tall, panels.widths[place] / across, panels.height / tall),
                label=f"frame {shown[place]}",
            )
            axes.set(xlim=(middle - half, middle + half), ylim=(low, high), xticks=[], yticks=[])
            axes.patch.set_facecolor("#f6f6f6")
            for spine in axes.spines.values():
                spine.set_visible(False)
            stage.draw(axes, shown[place], size=0.75 * min(1.0, panels.height / 1.6))
            axes.set_title(titles[place], fontsize=size, pad=2)
            left += panels.widths[place] + _GAP
    first = tall - above - over - panels.height
    _draw_arrows(figure, stage, (_EDGE, first), clip.unit if unit is None else unit, size)
    if handles:
        figure.legend(
            handles=handles, loc="lower center", ncols=columns, fontsize=size, frameon=False,
            bbox_to_anchor=(0.5, 0.0), borderaxespad=0.1, columnspacing=1.2, handlelength=1.8,
        )  # fmt: skip
    if overlay is not None and overlay.kind == "values":
        place_of_scale = ((across - _SCALE + 0.1) / across, first / tall, 0.1 / across, panels.height / tall)
        add_scale_bar(figure, figure.add_axes(place_of_scale, label="scale"), overlay, size)
    if traces is not None:
        _draw_traces(figure, traces, legend, size)
    return figure


def _box(stage: Stage, frame: int) -> tuple[Floats, Floats]:
    """Return lower left and upper right of the bodies of a frame, with room for the markers."""
    poses = [stage.coords[frame]] + ([] if stage.ghost is None else [stage.ghost[frame]])
    points = np.concatenate([pose.reshape(-1, 2) for pose in poses])
    points = np.clip(points[np.isfinite(points).all(axis=1)], stage.low, stage.high)
    if not len(points):
        return stage.middle - stage.room, stage.middle + stage.room
    return points.min(axis=0) - stage.room, points.max(axis=0) + stage.room


def _arrange(
    extents: Sequence[float], height: float, narrowest: Sequence[float], width: float | None, beside: float
) -> _Panels:
    """Choose rows and scale: as few rows as panels of a readable height need."""
    count = len(extents)
    for rows in range(1, count + 1):
        columns = -(-count // rows)
        if columns > _MOST_COLUMNS:
            continue
        places = [list(range(start, min(start + columns, count))) for start in range(0, count, columns)]
        inches = min(_TALLEST / height, _MOST_WIDE / max(extents))
        if width is not None:
            for row in places:
                room = width - beside - _GAP * len(row)
                # Panels that their titles make wider leave less to the others.
                wide = set[int]()
                while True:
                    left = room - sum(narrowest[place] for place in wide)
                    scale = left / max(sum(extents[place] for place in row if place not in wide), 1e-9)
                    more = {p for p in row if p not in wide and extents[p] * scale < narrowest[p]}
                    if not more or len(wide) + len(more) == len(row):
                        break
                    wide |= more
                inches = min(inches, scale)
            if (inches * height < _LOWEST or inches <= 0) and columns > 1:
                continue
        widths = [max(extent * inches, least) for extent, least in zip(extents, narrowest, strict=True)]
        return _Panels(places, inches, widths, inches * height)
    raise AssertionError("one panel a row always fits")


def _heading(stage: Stage, across: float, size: float) -> list[str]:
    """Return the title and what the overlay is, in lines that fit."""
    letters = max(20, int(across * 72 / (0.56 * size)))
    lines = textwrap.wrap(figure_text(stage.clip.title), letters) or [""]
    if stage.overlay is not None:
        lines += textwrap.wrap(stage.overlay.text, letters)
    return lines


def _draw_arrows(figure: Any, stage: Stage, place: tuple[float, float], unit: str, size: float) -> None:
    """Draw the directions of the axes beside the first panel."""
    wide, tall = figure.get_size_inches()
    axes = figure.add_axes((place[0] / wide, place[1] / tall, _AXES / wide, _AXES / tall), label="axes")
    axes.set(xlim=(-1.0, 1.5), ylim=(-0.9, 1.6))
    axes.axis("off")
    directions = stage.directions().tolist()
    across = max(range(len(directions)), key=lambda place: abs(directions[place][0]))
    for place_of, (name, (x, y)) in enumerate(zip(stage.axes_names(), directions, strict=True)):
        if math.hypot(x, y) < 0.1:  # along the line of sight
            continue
        arrow = {"arrowstyle": "-|>", "color": "#555555", "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (x, y), (0, 0), arrowprops=arrow)
        text = figure_text(f"{name} ({unit})" if unit else name)
        if place_of == across:
            axes.text(x / 2, min(y, 0) - 0.15, text, fontsize=size - 1.5, ha="center", va="top")
        elif abs(y) > 0.8:
            axes.text(x, y + 0.08, text, fontsize=size - 1.5, ha="center", va="bottom")
        else:
            axes.text(x + 0.1, y, text, fontsize=size - 1.5, ha="left", va="bottom")


def _trace_grid(traces: Traces, wide: float) -> tuple[int, int]:
    """Return columns and rows of the curves below a strip."""
    columns = max(1, min(len(traces.names), int(wide / 2.1)))
    return columns, -(-len(traces.names) // columns)


def _draw_traces(figure: Any, traces: Traces, below: float, size: float) -> None:
    wide, tall = figure.get_size_inches()
    columns, rows = _trace_grid(traces, wide)
    left, gap = 0.6, 0.45
    each = (wide - left - 0.2 - gap * (columns - 1)) / columns
    for column, name in enumerate(traces.names):
        x = left + column % columns * (each + gap)
        y = below + 0.42 + (rows - 1 - column // columns) * (_TRACES + 0.7)
        axes = figure.add_axes((x / wide, y / tall, each / wide, _TRACES / tall), label=f"trace {column}")
        axes.plot(traces.truth[:, column], color=COLOURS[0], linestyle=LINES[0], linewidth=1.2, label="truth")
        axes.plot(
            traces.prediction[:, column],
            color=COLOURS[1],
            linestyle=LINES[1],
            linewidth=1.2,
            label="prediction",
        )
        for border in traces.borders:
            axes.axvline(border, color="#bbbbbb", linewidth=0.7, zorder=0)
        axes.set_title(figure_text(name), fontsize=size, pad=3)
        axes.set_xlabel("frame of the model's clip", fontsize=size, labelpad=1)
        axes.tick_params(labelsize=size - 1, pad=1)
        axes.grid(alpha=0.3)
        if column % columns == 0:
            axes.set_ylabel(traces.label, fontsize=size, labelpad=1)
        if column == 0:
            axes.legend(fontsize=size - 1)
