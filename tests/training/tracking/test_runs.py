"""Trackers of runs of pretrain: they get the lines of metrics.jsonl, also over a stop, and end no run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.training import PretrainConfig, pretrain
from fastamr.training import report as report_module
from fastamr.training.report import RunReport
from fastamr.training.update.step import PretrainStep

from .stand_ins import MlflowStore, Wandb
from .test_trackers import Listener, install


def configure(out: Path, **options: Any) -> PretrainConfig:
    defaults: dict[str, Any] = {
        "model": "tiny",
        "out": str(out),
        "preprocess": [],
        "batch_size": 8,
        "min_frames": 8,
    }
    defaults |= {"updates": 6, "log_every": 1, "tensorboard": False, "progress": False, "device": "cpu"}
    return PretrainConfig(**{**defaults, "checkpoint_every": 1.0, **options})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _use_tiny(tiny: type) -> None:
    Listener.made.clear()


LISTENER = f"{Listener.__module__}:Listener"


def test_a_tracker_hears_what_the_file_holds_and_changes_nothing(tmp_path: Path, skeletons: Any) -> None:
    alone = pretrain(configure(tmp_path / "alone"), data=skeletons)
    out = pretrain(configure(tmp_path / "run", track=[LISTENER]), data=skeletons)
    (one,) = Listener.made
    assert one.records == lines(out)
    assert one.closed == 1
    assert one.run.config["architecture"]["width"] == 4
    assert (one.run.command, one.run.update, one.run.updates) == ("pretrain", 0, 6)
    losses = [[line["loss"] for line in lines(run) if line["kind"] == "train"] for run in (alone, out)]
    assert losses[0] == losses[1]
    assert [line["kind"] for line in lines(alone)] == [line["kind"] for line in lines(out)]


def test_a_run_that_goes_on_is_one_run(
    tmp_path: Path, skeletons: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, wandb = MlflowStore(), Wandb()
    install(monkeypatch, store.modules() | wandb.modules())
    whole = PretrainStep.__call__

    class Killed(Exception):
        pass

    def until(self: PretrainStep, *inputs: Any) -> Any:
        if self.update == 3:
            raise Killed
        return whole(self, *inputs)

    monkeypatch.setattr(PretrainStep, "__call__", until)
    with pytest.raises(Killed):
        pretrain(configure(tmp_path / "run", track=["mlflow", "wandb"]), data=skeletons)
    monkeypatch.setattr(PretrainStep, "__call__", whole)
    pretrain(configure(tmp_path / "run", track=["mlflow", "wandb"], resume=True), data=skeletons)
    (run,) = store.runs.values()
    assert run["status"] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    steps = [one.step for one in run["metrics"] if one.key == "train/loss"]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]
    (other,) = wandb.runs.values()
    assert {row["update"] for row in other["rows"]} == {1, 2, 3, 4, 5, 6}
    pretrain(configure(tmp_path / "run", track=["mlflow", "wandb"], overwrite=True), data=skeletons)
    assert (len(store.runs), len(wandb.runs)) == (2, 2)


def test_a_tracker_that_fails_is_one_warning_and_the_run_is_complete(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{Listener.__module__}:{name}" for name in ("Failing", "Unreachable")]
    out = pretrain(configure(tmp_path / "run", track=names), data=skeletons)
    assert (out / "complete.json").is_file()
    warnings = [line["message"] for line in lines(out) if line["kind"] == "warning"]
    assert [message.split(" failed")[0] for message in sorted(warnings)] == sorted(
        f"track {name}" for name in names
    )
    assert lines(out)[0]["kind"] == "header"
    said = capsys.readouterr().err
    assert [said.count(f"warning: track {name} failed") for name in names] == [1, 1]


def test_what_there_is_not_is_refused_before_anything_is_written(
    tmp_path: Path, skeletons: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match="track mlflow needs its package"):
        pretrain(configure(tmp_path / "run", track=["mlflow"]), data=skeletons)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="track tensorboard and tensorboard=False exclude each other"):
        configure(tmp_path / "run", track=["tensorboard"])
    with pytest.raises(ValueError, match="unknown track 'wanb'"):
        configure(tmp_path / "run", track=["wanb"])


def test_of_several_processes_the_first_one_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of another process opens no tracker."""
    monkeypatch.setattr(report_module, "plan_lines", lambda *_: [])
    config = configure(tmp_path, track=[LISTENER])
    for writes in (False, True):
        report = RunReport(config, None, None, 6, 0, quiet=True, writes=writes)  # type: ignore[arg-type]
        speed = type("Speed", (), {"lines": lambda _: [], "to_dict": lambda _: {}})()
        header = {"update": 0, "updates": 6, "notes": [], "warnings": []}
        report.open(header, torch.device("cpu"), speed, {})
        report.close()
        assert len(Listener.made) == writes
