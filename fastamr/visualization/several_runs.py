"""The curves of several runs in one figure; losses of different targets each have a panel of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .curves import PROBE
from .figures import COLOURS, LINES, MARKERS, figure_text, new_figure, save_figure

# Settings of a model by which its loss is another quantity.
_OF_THE_LOSS = ("target", "normalize", "target_patches", "target_joints", "stride", "mask_ratio", "layout")


def loss_kind(config: Mapping[str, Any]) -> str:
    """Return what the loss of a run is of: runs of one kind may share an axis, others may not.

    Args:
        config: of the run, as its ``config.yaml`` holds it.
    """
    own = dict(config.get("architecture") or {})
    data = [Path(str(source)).name for source in config.get("data") or []]
    return json.dumps(
        [config.get("model"), {name: own.get(name) for name in _OF_THE_LOSS}, config.get("preprocess"), data],
        sort_keys=True, default=str,
    )  # fmt: skip


def runs_figure(
    runs: Mapping[str, Mapping[str, list[dict[str, Any]]]],
    kinds: Mapping[str, str],
    models: Mapping[str, str],
    *,
    width: float = 10.0,
) -> Any:
    """Return a figure of several runs: a panel of losses for each kind, then the accuracy over the hours.

    Args:
        runs: records of each run, see :func:`~fastamr.visualization.curves.read_metrics`.
        kinds: of the loss of each run, see :func:`loss_kind`.
        models: what the model of each run is called.
        width: inches; below 5 the panels stand below one another.

    Raises:
        ImportError: matplotlib is not installed.
    """
    groups: dict[str, list[str]] = {}
    for name in runs:
        groups.setdefault(kinds[name], []).append(name)
    count = len(groups) + 1
    columns = 1 if width < 5 else min(count, 3)
    rows = -(-count // columns)
    size = 7.0 if width < 8 else 9.0
    figure = new_figure(width, rows * min(3.2, 0.72 * width / columns) + 0.25 * len(runs))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    style: dict[str, dict[str, Any]] = {
        name: {
            "color": COLOURS[place % len(COLOURS)], "linestyle": LINES[place % len(LINES)],
            "marker": MARKERS[place % len(MARKERS)], "markersize": 4, "linewidth": 1.3,
        }
        for place, name in enumerate(runs)
    }  # fmt: skip
    for axes, names in zip(panels, groups.values(), strict=False):
        for name in names:
            train = runs[name]["train"]
            x, y = [one["epoch"] for one in train], [one["loss"] for one in train]
            axes.plot(x, y, markevery=max(1, len(x) // 8), **style[name])
        called = " and ".join(dict.fromkeys(models[name] for name in names))
        axes.set_title(figure_text(f"loss of {called}"), fontsize=size + 1)
        axes.set_xlabel("epoch", fontsize=size)
        axes.set_ylabel("loss (no unit)" + (", not comparable\nwith the other panels" if len(groups) > 1 else ""),
            fontsize=size)  # fmt: skip
    last = panels[len(groups)]
    for name, records in runs.items():
        points = [(_hours(records, one), one[PROBE]) for one in records.get("probe", []) if PROBE in one]
        if points:
            last.plot(*zip(*points, strict=True), **style[name])
    if not last.lines:
        last.text(0.5, 0.5, "no run has a probe\n(--probe-every)", ha="center", va="center", fontsize=size,
            transform=last.transAxes)  # fmt: skip
    last.set_title("1-NN of the frozen encoder", fontsize=size + 1)
    last.set_xlabel("hours of updates", fontsize=size)
    last.set_ylabel("accuracy (%)", fontsize=size)
    for axes in panels[:count]:
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=size - 1)
    for axes in panels[count:]:
        axes.set_visible(False)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=figure_text(name), **style[name]) for name in runs]
    figure.legend(handles=handles, loc="outside lower center", ncols=1 if width < 5 else 2, fontsize=size)
    return figure


def _hours(records: Mapping[str, list[dict[str, Any]]], probe: Mapping[str, Any]) -> float:
    """Return the hours of updates before a probe: those of the last reading of the loss up to it."""
    seconds = [one.get("seconds", 0.0) for one in records["train"] if one["update"] <= probe["update"]]
    return max(seconds, default=0.0) / 3600


def draw_runs(path: str | Path, *given: Any, **options: Any) -> None:
    """Write :func:`runs_figure` in one piece.

    Raises:
        ImportError: matplotlib is not installed.
    """
    save_figure(runs_figure(*given, **options), path)
