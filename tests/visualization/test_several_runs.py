"""Several runs in one figure: which losses share an axis, hours, and that no texts collide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastamr import cli
from fastamr.visualization.several_runs import loss_kind, runs_figure

from .test_strip import collisions

pytest.importorskip("matplotlib")


def records(scale: float = 1.0, probes: bool = True) -> dict[str, list[dict[str, Any]]]:
    train = [
        {"kind": "train", "update": 10 * k, "epoch": float(k), "loss": scale / k, "lr": 1e-3, "seconds": 360.0 * k,
         "sequences_per_second": 9.0}
        for k in range(1, 9)
    ]  # fmt: skip
    found = [{"kind": "probe", "update": 20 * k, "epoch": 2.0 * k, "knn_1": 40.0 + k} for k in range(1, 4)]
    return {"train": train, "probe": found if probes else []}


def config(model: str, **own: Any) -> dict[str, Any]:
    return {
        "model": model,
        "architecture": {"width": 64, **own},
        "preprocess": ["center"],
        "data": ["a/x.st"],
    }


def test_losses_share_an_axis_where_they_are_of_one_target() -> None:
    one = loss_kind(config("amr", target="motion"))
    assert loss_kind(config("amr", target="motion", width=128)) == one
    others = [config("skeleton_mae", target="motion"), config("amr", target="joints")]
    others += [
        config("amr", target="motion", mask_ratio=0.5),
        config("amr", target="motion") | {"data": ["y.st"]},
    ]
    assert len({one, *map(loss_kind, others)}) == 5


def test_a_panel_for_each_kind_and_one_for_the_hours() -> None:
    runs = {"a": records(), "b": records(2.0), "c": records(5.0)}
    figure = runs_figure(runs, {"a": "x", "b": "x", "c": "y"}, {"a": "AMR", "b": "AMR", "c": "SkeletonMAE"})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [len(axes.lines) for axes in panels] == [2, 1, 3]
    assert [axes.get_title() for axes in panels[:2]] == ["loss of AMR", "loss of SkeletonMAE"]
    assert all("not comparable" in axes.get_ylabel() for axes in panels[:2])
    assert panels[2].lines[0].get_xdata() == pytest.approx([0.2, 0.4, 0.6])
    assert panels[2].lines[0].get_ydata() == pytest.approx([41.0, 42.0, 43.0])


@pytest.mark.parametrize("width", [3.25, 6.875, 10.0])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_texts_do_not_collide(width: float, count: int) -> None:
    runs = {f"runs/method_{k}": records(k + 1.0, probes=count > 1) for k in range(count)}
    names = {name: f"Method{place}" for place, name in enumerate(runs)}
    figure = runs_figure(runs, {name: name for name in runs}, names, width=width)
    assert collisions(figure) == []
    assert figure.get_figwidth() == width


def test_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("amr", "skeleton_mae"):
        (tmp_path / name).mkdir()
        lines = [line for kind in records().values() for line in kind]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (tmp_path / name / "config.yaml").write_text(f"model: {name}\ndata: [x.st]\n")
    words = ["plot", str(tmp_path / "amr"), str(tmp_path / "skeleton_mae"), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--format", "svg", "--width", "text"]) == 0
    text = (tmp_path / "out" / "runs.svg").read_text()
    for word in ("loss of AMR", "loss of SkeletonMAE", "hours of updates"):
        assert f"<!-- {word} -->" in text, word
    assert cli.main([*words, "--attention"]) == 2
    assert "--attention is of one run" in capsys.readouterr().err
    assert cli.main(["plot", str(tmp_path / "amr"), "--out", str(tmp_path), "--width", "text"]) == 2
