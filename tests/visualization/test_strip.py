"""Strips fill their panels, keep their widths, and no two of their texts collide."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr import cli
from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.visualization.clip import Clip, Traces, read_clip
from fastamr.visualization.figures import width_inches
from fastamr.visualization.overlays import guidance_overlay, mask_overlay, model_clip
from fastamr.visualization.strip import strip_figure

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def data() -> PackedSkeletons:
    return synthetic_actions(8, seed=0, frames=(40, 60))


def panels_of(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.get_label().startswith("frame ")]


def filled(axes: Any) -> float:
    """The share of a panel that the drawn joints' extent covers."""
    points = np.concatenate([np.asarray(each.get_offsets()) for each in axes.collections])
    corners = axes.transData.transform([points.min(axis=0), points.max(axis=0)])
    box = axes.get_window_extent()
    return float(np.prod(corners[1] - corners[0]) / (box.width * box.height))


def collisions(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap, and texts that leave the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    texts, beyond = [], set[int]()  # ticks outside of the limits have labels that are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        beyond |= {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    for text in figure.findobj(lambda one: hasattr(one, "get_text") and hasattr(one, "get_fontsize")):
        if text.get_visible() and text.get_text().strip() and id(text) not in beyond:
            box = text.get_window_extent(renderer)
            texts.append((text.get_text(), box.x0, box.y0, box.x1, box.y1))
    wide, tall = figure.get_size_inches() * figure.dpi
    found = [
        (one[0], "the edge") for one in texts if min(one[1:3]) < -1 or one[3] > wide + 1 or one[4] > tall + 1
    ]
    for one, other in itertools.combinations(dict.fromkeys(texts), 2):
        across = min(one[3], other[3]) - max(one[1], other[1])
        down = min(one[4], other[4]) - max(one[2], other[2])
        if across > 1 and down > 1:
            found.append((one[0], other[0]))
    return found


@pytest.mark.parametrize("clip", range(8))
def test_bodies_fill_their_panels(data: PackedSkeletons, clip: int) -> None:
    figure = strip_figure(read_clip(data, clip), frames=5)
    shares = [filled(axes) for axes in panels_of(figure)]
    assert len(shares) == 5
    assert np.mean(shares) > 0.55
    assert min(shares) > 0.25


def test_one_scale_for_all_panels(data: PackedSkeletons) -> None:
    figure = strip_figure(read_clip(data, 1), frames=7, width=5.0)
    scales = set()
    for axes in panels_of(figure):
        box = axes.get_window_extent()
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        scales |= {round(box.width / (right - left), 3), round(box.height / (high - low), 3)}
    assert max(scales) - min(scales) < 0.01 * max(scales)


@pytest.mark.parametrize("width", [None, 3.25, 6.875])
@pytest.mark.parametrize("what", ["plain", "mask", "guidance", "traces"])
def test_texts_do_not_collide(data: PackedSkeletons, width: float | None, what: str) -> None:
    seen = model_clip(data, 2, 24)
    overlay = {"mask": mask_overlay, "guidance": guidance_overlay}.get(what, lambda _: None)(seen)
    traces = None
    if what == "traces":
        names = ["left_hand_tip, x", "right_hand_tip, y", "right_foot, z"]
        traces = Traces(
            names, np.zeros((24, 3)), np.ones((24, 3)), [0, 12, 24], "standardised motion a frame"
        )
    figure = strip_figure(seen.shown, overlay, width=width, traces=traces)
    assert collisions(figure) == []
    if width is not None:
        assert figure.get_figwidth() == width


def test_a_frame_without_a_body_and_a_still_one(data: PackedSkeletons) -> None:
    clip = read_clip(data, 0)
    empty = clip.coords.copy()
    empty[0] = np.nan
    assert len(panels_of(strip_figure(Clip(empty, clip.layout, "a"), frames=3))) == 3
    point = np.ones_like(clip.coords)
    assert len(panels_of(strip_figure(Clip(point, clip.layout, "a"), frames=3))) == 3


def test_width_and_fonts_by_command(data: PackedSkeletons, tmp_path: Path) -> None:
    data.save(tmp_path / "d.safetensors")
    words = ["show", str(tmp_path / "d.safetensors"), "--guidance", "--frames", "6", "--out"]
    assert cli.main([*words, str(tmp_path / "a.pdf"), "--width", "column"]) == 0
    content = (tmp_path / "a.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ", content)
    assert float(box) == pytest.approx(3.25 * 72)
    assert b"/FontFile2" in content, "fonts are embedded as TrueType"
    assert b"/Subtype /Type3" not in content
    assert cli.main([*words, str(tmp_path / "a.pdf"), "--width", "wide"]) == 1
    assert (width_inches("text"), width_inches("4.5")) == (6.875, 4.5)
    with pytest.raises(ValueError, match="width 1: expected 2 to 30 inches"):
        width_inches("1")
