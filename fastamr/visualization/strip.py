"""A clip as a strip of frames, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files import check_folder_of
from .animation import decorate, frame_text
from .clip import Clip, Overlay, Traces
from .figures import COLOURS, LINES, figure_text, new_figure, picture_format, save_figure
from .skeleton_drawing import Stage

_MOST_COLUMNS = 8
# Height of a panel, inches.
_PANEL = 2.5


def draw_strip(
    path: str | Path,
    clip: Clip,
    overlay: Overlay | None = None,
    *,
    frames: int = 8,
    unit: str | None = None,
    traces: Traces | None = None,
    **view: Any,
) -> None:
    """Write frames at even distances as one picture.

    Args:
        path: ``.png``, ``.svg`` or ``.pdf``.
        clip: the clip.
        overlay: what is laid over the joints.
        frames: how many are shown.
        unit: of the coordinates, for the axes; "" = none, None = the clip's.
        traces: curves to draw below the strip.
        view: options of :class:`~fastamr.visualization.skeleton_drawing.Stage`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: another ending, no frame asked for, or nothing to draw.
        FileNotFoundError: no folder to write into.
    """
    picture_format(path)
    check_folder_of(path)
    if frames < 1:
        raise ValueError(f"frames={frames} must be at least 1")
    shown = np.unique(np.linspace(0, len(clip.coords) - 1, frames).round().astype(int))
    columns = min(len(shown), _MOST_COLUMNS)
    rows = -(-len(shown) // columns)
    stage = Stage(clip, overlay, **view)
    width, height = stage.proportions()
    panel = min(max(_PANEL * width / height, 1.5), 4.5)
    below = 0.0 if traces is None else 2.4
    figure = new_figure(max(panel * columns + 0.6, 7.0), _PANEL * rows + 1.1 + below)
    grid = figure.add_gridspec(
        rows + (traces is not None), columns, height_ratios=[_PANEL] * rows + [below] * (traces is not None)
    )
    axes = []
    for place, frame in enumerate(shown.tolist()):
        axes.append(stage.add_axes(figure, grid[place // columns, place % columns]))
        stage.draw(axes[-1], frame, size=0.75)
        axes[-1].set_title(frame_text(clip, frame), fontsize=8)
        if place == 0:
            stage.label_axes(
                axes[-1], clip.unit if unit is None else unit, ticks=3 if not stage.spatial else 2
            )
        else:
            stage.bare(axes[-1])
    decorate(figure, axes, stage)
    if traces is not None:
        _draw_traces(figure, grid[rows, :], traces)
    save_figure(figure, path)


def _draw_traces(figure: Any, place: Any, traces: Traces) -> None:
    inner = place.subgridspec(1, len(traces.names))
    for column, name in enumerate(traces.names):
        axes = figure.add_subplot(inner[0, column])
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
        axes.set_title(figure_text(name), fontsize=8)
        axes.set_xlabel("frame of the model's clip", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if column == 0:
            axes.set_ylabel(traces.label, fontsize=8)
            axes.legend(fontsize=7)
