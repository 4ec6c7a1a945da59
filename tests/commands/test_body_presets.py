"""The presets for every skeleton, end to end: two layouts to pre-train on, a third one to evaluate and fine-tune on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fastamr import cli
from fastamr.configs import BODY_PRESETS
from fastamr.data import apply_missing, load, preprocess, synthetic_actions
from fastamr.export import load_predictor
from fastamr.features import extract_features
from fastamr.models import load_pretrained
from fastamr.probes import knn_predict

QUICK = ["--device", "cpu", "--no-progress", "--no-tensorboard"]


def motion(folder: Path, layout: str, seed: int, clips: int = 16, *, flat: bool = False) -> str:
    """Generated motion as a sensor of that layout sees it, perhaps in a picture."""
    data = synthetic_actions(
        clips, seed=seed, actions=["drink", "kick"], subjects=4, train_share=0.5, frames=(20, 40)
    )
    if layout != data.layout.name:
        data = preprocess(data, [f"convert:layout={layout},missing=mask"])
    if flat:
        data = dataclasses.replace(data, coords=data.coords[..., :2].contiguous())
    path = str(folder / f"{layout}{'_flat' if flat else ''}.safetensors")
    data.save(path)
    return path


def records(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preset")
    sources = [motion(folder, "ntu25", 0), motion(folder, "kinect20", 1, 8)]
    out = folder / "run"
    words = ["--preset", "body-small", "--data", *sources, "--out", str(out), "--updates", "3"]
    assert cli.main(["pretrain", *words, "--batch-size", "6", "--log-every", "1", *QUICK]) == 0
    return out


def test_the_run_is_a_mixture_of_both(run: Path) -> None:
    model = load_pretrained(run)
    assert model.layout.name == "body"
    assert len(model.config.present) == 25
    lines = records(run)
    losses = [line for line in lines if "loss" in line]
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in losses)
    assert {name for line in losses for name in line if name.startswith("loss/")} == {
        "loss/ntu25",
        "loss/kinect20",
    }
    assert lines[0]["mixture"] == 0.5


def test_another_layout_is_evaluated_fine_tuned_and_predicted(run: Path, tmp_path: Path) -> None:
    own = motion(tmp_path, "coco17", 2)
    report = tmp_path / "report.json"
    words = ["--protocol", "knn", "--pooling", "regions", "--no-cache", "--device", "cpu", "--seeds", "0"]
    assert cli.main(["evaluate", "--checkpoint", str(run), "--data", own, *words, "--out", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["config"]["pooling"] == "regions"
    data, model = apply_missing(load(own), ["center", "align_body", "scale:unit=torso"]), load_pretrained(run)
    features, split = extract_features(model, data, pooling="regions"), data.split("official")
    assert features.shape[1] == 5 * 128 + 5
    predicted = knn_predict(features[split.train], data.labels[split.train], features[split.test])
    right = 100 * (predicted == data.labels[split.test]).double().mean().item()
    assert found["results"]["encoder"]["knn_1"]["accuracy"] == pytest.approx(right)
    folder = tmp_path / "classifier"
    words = [
        "--recipe.epochs",
        "1",
        "--recipe.batch-size",
        "4",
        "--recipe.pooling",
        "regions",
        "--device",
        "cpu",
    ]
    assert cli.main(["finetune", "--checkpoint", str(run), "--data", own, *words, "--out", str(folder)]) == 0
    assert cli.main(["predict", own, "--model", str(folder)]) == 0
    predictor = load_predictor(folder)
    for path in (own, motion(tmp_path, "kinect20", 3, 4)):
        other = load(path)
        chances = predictor.probabilities(predictor.prepare(other))
        assert chances.shape == (other.num_clips, 2)
        torch.testing.assert_close(chances.sum(1), torch.ones(other.num_clips))


def test_one_file_has_no_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = motion(tmp_path, "kinect20", 4, 8)
    words = ["--preset", "body-small", "--data", own, "--out", str(tmp_path / "run"), "--updates", "1"]
    words = ["pretrain", *words, "--batch-size", "4", *QUICK]
    assert cli.main(words) == 1
    assert "there is one: name more with --data, or pass --mixture null" in capsys.readouterr().err
    assert cli.main([*words, "--mixture", "null"]) == 0


def test_motion_in_space_and_in_pictures(tmp_path: Path) -> None:
    sources = [motion(tmp_path, "ntu25", 0), motion(tmp_path, "kinect20", 1, 8, flat=True)]
    words = ["--preset", "body-flat", "--data", *sources, "--out", str(tmp_path / "run"), "--updates", "2"]
    assert cli.main(["pretrain", *words, "--batch-size", "6", "--log-every", "1", *QUICK]) == 0
    model = load_pretrained(tmp_path / "run")
    assert model.config.flat_embedding
    assert model.config.channels == 3
    vectors = [value for name, value in model.named_parameters() if "flat" in name]
    assert vectors
    assert all(torch.isfinite(value).all() for value in vectors)


@pytest.mark.parametrize("preset", BODY_PRESETS)
def test_a_model_that_has_none_is_told(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "--model", "slim", "--preset", preset]) == 2
    assert f"preset '{preset}' does not exist for model 'slim', which has paper" in capsys.readouterr().err
