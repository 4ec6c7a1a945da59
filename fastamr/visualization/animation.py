"""A clip as a moving picture: GIF, or MP4 where ffmpeg is installed."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import check_folder_of, replaced, temporary_folder
from .clip import Clip, Overlay
from .figures import figure_text, new_figure, picture_format
from .skeleton_drawing import Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANIMATIONS = ("gif", "mp4")
# Where the file has no frame rate (choice); players show GIFs faster than 50 a second slowly.
UNKNOWN_RATE, _FASTEST_GIF = 12.0, 50.0


def draw_animation(
    path: str | Path,
    clip: Clip,
    overlay: Overlay | None = None,
    *,
    fps: float | None = None,
    unit: str | None = None,
    dpi: int = 90,
    **view: Any,
) -> None:
    """Write a clip as an animation, in one piece.

    Args:
        path: ``.gif`` or ``.mp4``.
        clip: the clip.
        overlay: what is laid over the joints.
        fps: frames shown a second; None = the clip's own rate, 12 where that is unknown.
        unit: of the coordinates, for the axes; "" = none, None = the clip's.
        dpi: pixels an inch; the figure is 6.4 by 6 inches.
        view: options of :class:`~fastamr.visualization.skeleton_drawing.Stage`.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: MP4 without ffmpeg.
        ValueError: another ending, or nothing to draw.
        FileNotFoundError: no folder to write into.
    """
    ending = picture_format(path, ANIMATIONS)
    check_folder_of(path)
    if ending == "mp4" and shutil.which("ffmpeg") is None:
        raise OSError(f"{path}: MP4 needs ffmpeg, which is not on the path: install it, or name a .gif file")
    rate = fps or (clip.fps if math.isfinite(clip.fps) and clip.fps > 0 else UNKNOWN_RATE)
    figure = new_figure(6.4, 6.0)
    step = max(1, math.ceil(rate / _FASTEST_GIF)) if ending == "gif" else 1
    stage = Stage(clip, overlay, **view)
    # The writers choose the format by the ending, so they get a folder of their own.
    with temporary_folder() as folder:
        made = folder / f"clip.{ending}"
        _write(figure, stage, made, rate / step, range(0, len(clip.coords), step), unit, dpi)
        with replaced(path) as temporary:
            shutil.copyfile(made, temporary)


def _write(
    figure: Figure, stage: Stage, path: Path, rate: float, frames: range, unit: str | None, dpi: int
) -> None:
    from matplotlib.animation import FFMpegWriter, PillowWriter

    writer = (PillowWriter if path.suffix == ".gif" else FFMpegWriter)(fps=rate)  # type: ignore[arg-type]
    axes = stage.add_axes(figure, 111)
    stage.label_axes(axes, stage.clip.unit if unit is None else unit)
    decorate(figure, axes, stage)
    with writer.saving(figure, str(path), dpi):
        for frame in frames:
            for artist in [*axes.lines, *axes.collections]:
                artist.remove()
            stage.draw(axes, frame)
            axes.set_title(frame_text(stage.clip, frame), fontsize=9)
            writer.grab_frame()
            # Where everything goes is found once; doing so for every frame takes most of the time.
            figure.set_layout_engine("none")


def frame_text(clip: Clip, frame: int) -> str:
    """Return which frame is shown, and when it was where the frame rate is known."""
    time = float(clip.times[frame])
    shown = f"frame {time:.0f}" if time.is_integer() else f"frame {time:.1f}"
    return f"{shown}, {time / clip.fps:.2f} s" if math.isfinite(clip.fps) and clip.fps > 0 else shown


def decorate(figure: Figure, axes: Any, stage: Stage) -> None:
    """Add the heading, the legend below, and the scale of an overlay of values."""
    import textwrap

    lines = [figure_text(stage.clip.title)]
    if stage.overlay is not None:
        lines += textwrap.wrap(stage.overlay.text, max(60, int(figure.get_figwidth() * 13)))
    figure.suptitle("\n".join(lines), fontsize=10)
    handles = stage.legend()
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=8)
    if stage.overlay is not None and stage.overlay.kind == "values":
        add_scale(figure, axes, stage.overlay)


def add_scale(figure: Figure, axes: Any, overlay: Overlay) -> None:
    """Add the colour bar of an overlay of values beside axes."""
    _label_scale(figure.colorbar(_colours(overlay), ax=axes, shrink=0.6, pad=0.02, aspect=30), overlay, 8)


def add_scale_bar(figure: Figure, place: Any, overlay: Overlay, size: float) -> None:
    """Draw the colour bar of an overlay of values into axes of its own, with text of a size in points."""
    _label_scale(figure.colorbar(_colours(overlay), cax=place), overlay, size)


def _colours(overlay: Overlay) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(*overlay.scale), "viridis")


def _label_scale(bar: Any, overlay: Overlay, size: float) -> None:
    bar.set_label(f"{overlay.label}\n(larger = larger marker)", fontsize=size)
    bar.ax.tick_params(labelsize=size - 1)
