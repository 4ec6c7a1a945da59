import json
import sys
from pathlib import Path

import pytest
import torch

from fastamr.training.metrics.metrics import MetricsLog, environment


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_are_json_lines_and_appear_in_tensorboard(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = MetricsLog(tmp_path)
    log.write("header", update=0, torch="2")
    log.write("train", update=10, loss=0.5, lr=1e-3)
    log.write("probe", update=10, knn_1=40.0)
    log.close()
    assert records(tmp_path) == [
        {"kind": "header", "update": 0, "torch": "2"},
        {"kind": "train", "update": 10, "loss": 0.5, "lr": 1e-3},
        {"kind": "probe", "update": 10, "knn_1": 40.0},
    ]
    board = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(10, 0.5)]
    assert sorted(board.Tags()["scalars"]) == ["probe/knn_1", "train/loss", "train/lr"]


def test_a_resumed_log_drops_what_the_checkpoint_does_not_hold(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, tensorboard=False)
    log.write("header", update=0)
    for update in (5, 10, 15):
        log.write("train", update=update, loss=float(update))
    log.write("summary", update=10)
    log.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "tr')
    log = MetricsLog(tmp_path, start=10, tensorboard=False)
    log.write("train", update=15, loss=-1.0)
    log.close()
    assert [(line["kind"], line["update"], line.get("loss")) for line in records(tmp_path)] == [
        ("header", 0, None),
        ("train", 5, 5.0),
        ("train", 10, 10.0),
        ("train", 15, -1.0),
    ]


def test_tensorboard_absent_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = MetricsLog(tmp_path)
    log.write("train", update=1, loss=1.0)
    log.close()
    assert capsys.readouterr().err.count("pip install 'fastamr[tensorboard]'") == 1
    assert records(tmp_path)[0]["loss"] == 1.0


def test_environment_names_versions_and_device() -> None:
    found = environment(torch.device("cpu"))
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    json.dumps(found)
