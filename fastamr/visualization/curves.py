"""The curves of a run: loss, learning rate, throughput, probe accuracy."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

from .figures import COLOURS, LINES, MARKERS, figure_text, new_figure, save_figure

METRICS_FILE = "metrics.jsonl"
# What the curves need of a record, by its kind, and what its further curves begin with: one for each data set.
_NUMBERS = {"train": ("epoch", "loss", "lr", "sequences_per_second"), "probe": ("epoch",)}
_BY_SET = {"train": "loss/", "probe": "probe/"}
PROBE = "knn_1"


def read_metrics(run: str | Path) -> dict[str, list[dict[str, Any]]]:
    """Return the records of a run's ``metrics.jsonl`` by kind; lines that are none are left out with a warning.

    The last line may be cut short without one: the run may be going on.

    Raises:
        FileNotFoundError: the folder holds no such file.
        ValueError: the file has no record of the training.
    """
    path = Path(run) / METRICS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} holds no {METRICS_FILE}: expected the folder of a run of fastamr pretrain"
        )
    records: dict[str, list[dict[str, Any]]] = {}
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    lines = lines[:-1] if not lines[-1] else lines
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            kind = record["kind"]
            names = [name for name in record if name.startswith(_BY_SET.get(kind, "/"))]
            names += [name for name in (PROBE,) if kind == "probe" and (name in record or not names)]
            for name in (*_NUMBERS.get(kind, ()), *names):
                math.isfinite(record[name])  # raises for what is no number, or too large for one
            records.setdefault(kind, []).append(record)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            if number < len(lines):
                text = f"{path}, line {number} is no record of a run and is left out: {line[:60]!r}"
                warnings.warn(text, stacklevel=2)
    if not records.get("train"):
        raise ValueError(
            f"{path} has no record of the training yet: plot it after the first --log-every updates"
        )
    return records


def draw_curves(path: str | Path, records: dict[str, list[dict[str, Any]]], *, title: str = "") -> None:
    """Draw the curves of a run as four panels.

    Args:
        path: the picture, ``.png``, ``.svg`` or ``.pdf``.
        records: what :func:`read_metrics` returns.
        title: heading of the figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(10, 6.6)
    panels = figure.subplots(2, 2)
    train, probes = records["train"], records.get("probe", [])
    header = records.get("header", [{}])[-1]
    precision = str(header.get("precision", ""))
    device = " ".join(str(header[key]) for key in ("device_name",) if header.get(key))
    _panel(panels[0, 0], train, "loss", "loss (no unit)", "pre-training loss", 0)
    _by_set(panels[0, 0], train, "loss/", "all")
    _panel(panels[0, 1], train, "lr", "learning rate", "learning rate of each update", 1)
    speed = (
        f"throughput ({', '.join(filter(None, (device, precision)))})"
        if device or precision
        else "throughput"
    )
    _panel(panels[1, 0], train, "sequences_per_second", "sequences / s", speed, 2)
    panels[1, 0].set_ylim(bottom=0)
    if probes:
        split = header.get("split")
        name = f"1-NN on split {split!r}" if split else "1-NN"
        together = [record for record in probes if PROBE in record]
        _panel(panels[1, 1], together, PROBE, "accuracy (%)", f"probe of the frozen encoder: {name}", 3)
        if together:
            last = together[-1]
            panels[1, 1].annotate(
                f"{last[PROBE]:.1f}",
                (last["epoch"], last[PROBE]),
                textcoords="offset points",
                xytext=(0, 7),
                ha="center",
            )
        _by_set(panels[1, 1], probes, "probe/", "all training sets" if together else "")
        panels[1, 1].margins(y=0.2)
    else:
        panels[1, 1].text(
            0.5,
            0.5,
            "no probe in this run (--probe-every)",
            ha="center",
            va="center",
            transform=panels[1, 1].transAxes,
        )
        panels[1, 1].set(title="probe of the frozen encoder", xlabel="epoch", ylabel="accuracy (%)")
    if title:
        figure.suptitle(figure_text(title))
    save_figure(figure, path)


def _panel(axes: Any, records: list[dict[str, Any]], key: str, label: str, title: str, style: int) -> None:
    x = [record["epoch"] for record in records]
    y = [record[key] for record in records]
    axes.plot(
        x,
        y,
        color=COLOURS[style],
        marker=MARKERS[style],
        markersize=4,
        markevery=max(1, len(x) // 12),
        linewidth=1.4,
    )
    axes.set(xlabel="epoch", ylabel=label, title=title)
    axes.grid(alpha=0.3)


def _by_set(axes: Any, records: list[dict[str, Any]], beginning: str, whole: str) -> None:
    """Add a curve for each data set to a panel, and a legend.

    Args:
        axes: the panel; it has the curve of all sets together, or an empty one.
        records: of one kind.
        beginning: of the sets' keys.
        whole: what the first curve is called; empty = it has no points.
    """
    names = dict.fromkeys(name for record in records for name in record if name.startswith(beginning))
    if not names:
        return
    axes.lines[0].set_label(figure_text(whole) or None)
    for place, name in enumerate(names):
        own = [record for record in records if name in record]
        axes.plot(
            [record["epoch"] for record in own],
            [record[name] for record in own],
            color=COLOURS[(place + 4) % len(COLOURS)],
            linestyle=LINES[1 + place % (len(LINES) - 1)],
            marker=MARKERS[(place + 4) % len(MARKERS)],
            markersize=3,
            markevery=max(1, len(own) // 12),
            linewidth=1.0,
            label=figure_text(name.removeprefix(beginning)),
        )
    axes.legend(fontsize="small")
