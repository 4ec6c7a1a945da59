"""The trackers by themselves: what each is told, and what becomes of one that fails or hangs."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fastamr.tracking import TrackedRun, Tracking, check_names, check_trackers, numbers, wanted
from fastamr.tracking.boards import MLflow, flat
from fastamr.tracking.tracker import TRACKING_FILE

from .stand_ins import MlflowStore, Wandb

RECORDS: list[dict[str, Any]] = [
    {"kind": "header", "update": 0, "torch": "2"},
    {"kind": "train", "update": 10, "loss": 0.5, "lr": 1e-3, "loss/ntu_$1$": 0.25},
    {"kind": "train", "update": 20, "loss": None, "lr": 1e-3},
    {"kind": "probe", "update": 20, "knn_1": 40.0},
    {"kind": "warning", "update": 20, "message": "look"},
]
CONFIG = {
    "lr": 1e-3,
    "out": "x" * 900,
    "architecture": {"width": 64},
    **{f"option{k}": k for k in range(150)},
}


def run_of(folder: Path, update: int = 0, updates: int = 20) -> TrackedRun:
    return TrackedRun(folder, "pretrain", CONFIG, update, updates)


def install(monkeypatch: pytest.MonkeyPatch, modules: dict[str, Any]) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def track(name: str, folder: Path, records: list[dict[str, Any]], **run: Any) -> list[str]:
    """Hand records to a tracker; return what it fails with."""
    told: list[str] = []
    tracking = Tracking([name], run_of(folder, **run), told.append)
    for record in records:
        tracking.log(record)
    tracking.close()
    return told


class Listener:
    """A tracker of one's own."""

    made: ClassVar[list[Listener]] = []

    def __init__(self, run: TrackedRun) -> None:
        self.run, self.records, self.closed = run, list[Any](), 0
        self.thread: int | None = None
        self.made.append(self)

    def log(self, record: Any) -> None:
        self.thread = threading.get_ident()
        self.records.append(record)

    def close(self) -> None:
        self.closed += 1


class Failing(Listener):
    """Fails at the second record, as the end of a process does not do for an ``Exception``."""

    def log(self, record: Any) -> None:
        super().log(record)
        if len(self.records) == 2:
            raise SystemExit("the server\nis gone")


class Hanging(Listener):
    """Never takes a record."""

    free = threading.Event()

    def log(self, record: Any) -> None:
        self.free.wait(60)


class Unreachable:
    """Cannot be made."""

    def __init__(self, run: TrackedRun) -> None:
        raise ConnectionError("no route to the server")


@pytest.fixture(autouse=True)
def _nobody_listens() -> None:
    Listener.made.clear()


def test_numbers_of_a_record() -> None:
    assert [numbers(record) for record in RECORDS] == [
        {},
        {"train/loss": 0.5, "train/lr": 1e-3, "train/loss/ntu_$1$": 0.25},
        {"train/lr": 1e-3},
        {"probe/knn_1": 40.0},
        {},
    ]


def test_a_class_of_ones_own_gets_every_record_in_order_in_one_other_thread(tmp_path: Path) -> None:
    assert track(f"{__name__}:Listener", tmp_path, RECORDS) == []
    (one,) = Listener.made
    assert one.records == RECORDS
    assert one.closed == 1
    assert one.thread not in (None, threading.get_ident())
    assert one.run.name == tmp_path.as_posix()


def test_one_that_fails_is_told_once_and_the_others_go_on(tmp_path: Path) -> None:
    told: list[str] = []
    names = [f"{__name__}:{name}" for name in ("Unreachable", "Failing", "Listener")]
    tracking = Tracking(names, run_of(tmp_path), told.append)
    assert told == [], "it is told after the header is written"
    for record in RECORDS:
        tracking.log(record)
    tracking.close()
    assert len(told) == 2
    assert told[0].startswith(
        f"track {names[0]} failed (ConnectionError: no route to the server): the run goes on"
    )
    assert told[1].startswith(f"track {names[1]} failed (SystemExit: the server is gone): the run goes on")
    failing, listener = Listener.made
    assert len(failing.records) == 2
    assert failing.closed == listener.closed == 1
    assert listener.records == RECORDS


def test_one_that_hangs_keeps_nobody_waiting(tmp_path: Path) -> None:
    told: list[str] = []
    Hanging.free.clear()
    name = f"{__name__}:Hanging"
    tracking = Tracking([name], run_of(tmp_path), told.append, patience=0.1)
    for record in RECORDS:
        tracking.log(record)
    tracking.close()
    assert told == [
        f"{name} did not take the last records in 0.1 s: they may lack there; metrics.jsonl has them all"
    ]
    told.clear()
    tracking = Tracking([name], run_of(tmp_path), told.append, patience=0.1)
    for _ in range(10_003):
        tracking.log(RECORDS[0])
    assert len(told) == 1
    assert "did not take 10000 records: tracked no longer" in told[0]
    tracking.close()
    Hanging.free.set()


def test_names_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    check_names(["tensorboard", "mlflow", "wandb", "a.b:C"])
    with pytest.raises(ValueError, match=r"unknown track 'mlfow'.*did you mean 'mlflow'"):
        check_names(["mlfow"])
    with pytest.raises(ValueError, match="track ':C': expected MODULE:CLASS"):
        check_names([":C"])
    for name, reason in (
        ("no_such_module:C", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("json:Nothing", "AttributeError"),
    ):
        with pytest.raises(ValueError, match=f"track '{name}' cannot be imported .{reason}"):
            check_trackers([name])
    with pytest.raises(ValueError, match="track 'math:pi' is no class"):
        check_trackers(["math:pi"])
    for name in ("mlflow", "wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(
            ImportError, match=rf"track {name} needs its package: pip install 'fastamr\[{name}\]'"
        ):
            check_trackers([name])


def test_tensorboard_that_nobody_asked_for_may_be_absent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert wanted(["wandb", "wandb"], True) == ["wandb"]
    assert capsys.readouterr().err.count("pip install 'fastamr[tensorboard]'") == 1
    assert wanted([], False) == []
    assert capsys.readouterr().err == ""


def test_tensorboard(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert track("tensorboard", tmp_path, RECORDS) == []
    board = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(10, 0.5)]
    assert sorted(board.Tags()["scalars"]) == ["probe/knn_1", "train/loss", "train/loss/ntu_$1$", "train/lr"]
    assert "tensorboard/events" in (tmp_path / "manifest.jsonl").read_text(), "--overwrite may remove it"


def test_mlflow_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MlflowStore()
    install(monkeypatch, store.modules())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    assert track("mlflow", tmp_path, RECORDS[:2], updates=30) == []
    assert store.experiments == {"fastamr": "0"}
    assert store.runs["id0"]["status"] == ["RUNNING", "KILLED"], "it was stopped before its last update"
    assert track("mlflow", tmp_path, RECORDS[2:], update=10, updates=20) == []
    (run,) = store.runs.values()
    assert run["status"] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert [(one.key, one.value, one.step) for one in run["metrics"]] == [
        ("train/loss", 0.5, 10),
        ("train/lr", 1e-3, 10),
        ("train/loss.ntu__x24_1_x24_", 0.25, 10),
        ("train/lr", 1e-3, 20),
        ("probe/knn_1", 40.0, 20),
    ]
    params = {name: str(value) for name, value in flat({"command": "pretrain", **CONFIG})}
    params["out"] = "x" * 497 + "..."
    assert run["params"] == params
    assert params["architecture.width"] == "64"
    # A run that begins anew in the folder, and one whose store is another, are runs of their own.
    assert track("mlflow", tmp_path, RECORDS) == []
    other = MlflowStore("file:///elsewhere")
    install(monkeypatch, other.modules())
    assert track("mlflow", tmp_path, RECORDS, update=10) == []
    assert (list(store.runs), list(other.runs)) == (["id0", "id1"], ["id0"])


def test_mlflow_store_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself, without a server."""
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    folder = tmp_path / "run"
    folder.mkdir()
    assert track("mlflow", folder, RECORDS[:2], updates=30) == []
    assert track("mlflow", folder, RECORDS[2:], update=10) == []
    client = MlflowClient()
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (folder.as_posix(), "FINISHED")
    assert run.data.params["architecture.width"] == "64"
    history = client.get_metric_history(run.info.run_id, "train/lr")
    assert [(one.step, one.value) for one in history] == [(10, 1e-3), (20, 1e-3)]
    assert run.data.metrics["train/loss.ntu__x24_1_x24_"] == 0.25
    assert run.info.run_id in (folder / TRACKING_FILE).read_text()
    (folder / TRACKING_FILE).write_text(json.dumps({"mlflow": f"gone {os.environ['MLFLOW_TRACKING_URI']}"}))
    (told,) = track("mlflow", folder, RECORDS, update=10)
    assert "track mlflow failed (MlflowException: Run 'gone' not found): the run goes on" in told


def test_wandb_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    install(monkeypatch, wandb.modules())
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert track("wandb", tmp_path, RECORDS[:2]) == []
    assert track("wandb", tmp_path, RECORDS[2:], update=10) == []
    ((name, run),) = wandb.runs.items()
    assert [one["resume"] for one in run["inits"]] == [None, "allow"]
    first = run["inits"][0]
    assert (first["project"], first["name"], first["dir"]) == ("mine", tmp_path.as_posix(), str(tmp_path))
    assert first["config"] == CONFIG
    assert first["id"] == name
    assert run["axes"] == {"update": None, "*": "update"}
    assert run["rows"] == [
        {"update": 10, "train/loss": 0.5, "train/lr": 1e-3, "train/loss/ntu_$1$": 0.25},
        {"update": 20, "train/lr": 1e-3},
        {"update": 20, "probe/knn_1": 40.0},
    ]
    assert run["finished"] == 2
    assert track("wandb", tmp_path, RECORDS) == []
    assert len(wandb.runs) == 2, "a run that begins anew is another one"


def test_a_package_that_cannot_be_used_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MlflowStore()
    install(monkeypatch, store.modules())
    monkeypatch.setattr(MLflow, "log", lambda self, record: 1 / 0)
    (told,) = track("mlflow", tmp_path, RECORDS)
    assert told.startswith(
        "track mlflow failed (ZeroDivisionError: division by zero): the run goes on without it"
    )
    assert store.runs["id0"]["status"][-1] == "KILLED"
