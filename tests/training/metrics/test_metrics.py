import json
from pathlib import Path

import torch

from fastamr.training.metrics.metrics import MetricsLog, environment


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_are_json_lines(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.log({"kind": "header", "update": 0, "torch": "2"})
    log.log({"kind": "train", "update": 10, "loss": 0.5, "lr": 1e-3})
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"kind": "header", "update": 0, "torch": "2"}\n'
        '{"kind": "train", "update": 10, "loss": 0.5, "lr": 0.001}\n'
    )
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_resumed_log_drops_what_the_checkpoint_does_not_hold(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.log({"kind": "header", "update": 0})
    for update in (5, 10, 15):
        log.log({"kind": "train", "update": update, "loss": float(update)})
    log.log({"kind": "summary", "update": 10})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "tr')
    log = MetricsLog(tmp_path, start=10)
    log.log({"kind": "train", "update": 15, "loss": -1.0})
    log.close()
    assert [(line["kind"], line["update"], line.get("loss")) for line in records(tmp_path)] == [
        ("header", 0, None),
        ("train", 5, 5.0),
        ("train", 10, 10.0),
        ("train", 15, -1.0),
    ]


def test_environment_names_versions_and_device() -> None:
    found = environment(torch.device("cpu"))
    assert found["torch"] == torch.__version__
    assert found["device"] == "cpu"
    json.dumps(found)
