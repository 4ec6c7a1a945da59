"""The shared case of a classifier that is fine-tuned: the command as its README has it, on data made here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fastamr.cli import main
from fastamr.data import synthetic_actions
from fastamr.models import build_model

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"the shared cases are not in {CASES}"),
]


def test_38_finetune_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert "--checkpoint CLASSIFIER_FOLDER" in (CASES / "38_finetune_a_classifier" / "README").read_text()
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    build_model(
        "amr", layout="ntu25", frames=16, width=16, depth=1, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    ).save_pretrained("run")  # fmt: skip
    data = synthetic_actions(60, actions=("wave", "squat"), frames=(40, 60))
    data.save("first.safetensors")
    other = synthetic_actions(60, seed=1, actions=("jump", "kick", "bow"), frames=(40, 60))
    other.save("other_classes.safetensors")
    flipped = dataclasses.replace(data, labels=1 - data.labels, label_names=("squat", "wave"))
    flipped.save("other_order.safetensors")
    words = ["--device", "cpu", "--recipe.epochs", "2"]

    def tune(checkpoint: str, source: str, out: str) -> dict:
        assert main(["finetune", "--checkpoint", checkpoint, "--data", source, "--out", out, *words]) == 0
        return json.loads(Path(out, "classifier.json").read_text(encoding="utf-8"))["start"]

    tune("run", "first.safetensors", "CLASSIFIER_FOLDER")
    start = tune("CLASSIFIER_FOLDER", "other_classes.safetensors", "x")
    assert start["chain"] == ["run", "CLASSIFIER_FOLDER"]
    assert "new head" in start["head"]
    assert "continues the classifier in CLASSIFIER_FOLDER" in capsys.readouterr().out
    assert "sorted" in tune("CLASSIFIER_FOLDER", "other_order.safetensors", "y")["head"]
