"""Trackers of fine-tuning and of distillation, whose students are runs of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import PackedSkeletons
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig
from fastamr.models import build_model

from ..training.tracking.stand_ins import MlflowStore
from ..training.tracking.test_trackers import Listener, install

LISTENER = f"{Listener.__module__}:Listener"
RECIPE = {"epochs": 2, "batch_size": 8, "min_frames": 4}


@pytest.fixture
def run(tmp_path: Path, data: PackedSkeletons) -> Path:
    torch.manual_seed(0)
    small = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    model = build_model("amr", layout=data.layout, frames=8, target_patches=1, **small)
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("steps: [center]\n")
    Listener.made.clear()
    return tmp_path / "run"


@pytest.fixture
def data(make_data: Any) -> PackedSkeletons:
    return make_data(clips=36, lengths=(5, 9, 12))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_of_a_fine_tuning(
    run: Path, data: PackedSkeletons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MlflowStore()
    install(monkeypatch, store.modules())
    config = ClassifierConfig(
        checkpoint=str(run), data=["x"], out=str(tmp_path / "out"), frozen=False, device="cpu", recipe=RECIPE,
        track=[LISTENER, "mlflow"],
    )  # fmt: skip
    train_classifier(config, data=data, quiet=True)
    (one,) = Listener.made
    assert one.records == lines(tmp_path / "out")
    assert [record["kind"] for record in one.records] == ["header", "train", "train"]
    assert (one.run.command, one.closed) == ("finetune", 1)
    (kept,) = store.runs.values()
    assert kept["status"] == ["RUNNING", "FINISHED"]
    with pytest.raises(ValueError, match="track has no effect with frozen"):
        ClassifierConfig(checkpoint=str(run), data=["x"], frozen=True, track=["mlflow"])
    with pytest.raises(ValueError, match="unknown track 'mlflw'"):
        ClassifierConfig(checkpoint=str(run), data=["x"], track=["mlflw"])


def test_of_a_distillation(run: Path, data: PackedSkeletons, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    config = DistillConfig(
        teacher=str(run), data=["x"], out=str(tmp_path / "out"), device="cpu", latency=False, track=[LISTENER],
        student={"width": 8, "depth": 1, "heads": 2}, recipe=RECIPE,
    )  # fmt: skip
    distill(config, data=data, quiet=True)
    names = [f"students/{kind}-0" for kind in ("distilled", "labels")]
    assert [one.run.name for one in Listener.made] == [(tmp_path / "out" / name).as_posix() for name in names]
    for one, name in zip(Listener.made, names, strict=True):
        assert one.records == lines(tmp_path / "out" / name)
        assert (one.run.command, one.closed) == ("distill", 1)
