"""Fine-tuned and frozen classifiers whose features are pooled by regions, and whose people stand side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fastamr.cli import main
from fastamr.data import PackedSkeletons
from fastamr.evaluation.evaluate import EvaluateConfig
from fastamr.export import Predictor
from fastamr.features.extract import extract_features
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig
from fastamr.finetuning.finetune import FinetuneConfig
from fastamr.models import ActionClassifier
from fastamr.probes import logistic_regression

from ..features.puppets import model, puppets

QUICK: dict[str, Any] = {
    "epochs": 20, "batch_size": 16, "lr": 5e-3, "hidden": 0, "dropout": 0.0, "drop_path": 0.0, "min_frames": 4,
    "pooling": "regions+time", "bodies": "ordered",
}  # fmt: skip


@pytest.fixture
def data() -> PackedSkeletons:
    return puppets((1, 2, 3, 2, 1) * 12, missing=True, label_names=("a", "b", "c"))


@pytest.fixture
def tune(tmp_path: Path, data: PackedSkeletons):
    """Train a classifier from a folder into ``tmp_path / out``; returns the report."""
    model().save_pretrained(tmp_path / "run")

    def tune(start: str, out: str, **more: Any) -> dict[str, Any]:
        config = ClassifierConfig(tmp_path / start, ["x"], tmp_path / out, device="cpu", **more)  # type: ignore[arg-type]
        return train_classifier(config, data=data, quiet=True)

    return tune


def test_fine_tuned_predicted_and_continued(tmp_path: Path, data: PackedSkeletons, tune: Any) -> None:
    report = tune("run", "first", recipe=QUICK)
    assert report["accuracy"] > 80
    own = ActionClassifier.from_pretrained(tmp_path / "first")
    assert (own.pooling, own.bodies) == ("regions+time", "ordered")
    test = data.split("official").test
    predicted = Predictor(own, say=lambda line: None).probabilities(data).argmax(1)
    assert 100 * (predicted == data.labels)[test].double().mean() == pytest.approx(report["accuracy"])
    # Continued without saying so, its head keeps the form.
    again = tune("first", "second", recipe={"epochs": 1, "min_frames": 4})
    assert again["recipe"]["pooling"] == "regions+time"
    assert again["recipe"]["bodies"] == "ordered"
    assert again["start"]["head"] == "its head, kept"


@pytest.mark.parametrize("form", [{}, {"pooling": "regions"}, {"pooling": "mean+max", "bodies": "ordered"}])
def test_a_linear_head_on_frozen_features(
    tmp_path: Path, data: PackedSkeletons, tune: Any, form: dict[str, str]
) -> None:
    report = tune("run", "frozen", frozen=True, recipe=form)
    own = ActionClassifier.from_pretrained(tmp_path / "frozen")
    assert (own.pooling, own.bodies) == (form.get("pooling", "mean"), form.get("bodies", "mean"))
    split = data.split("official")
    bodies = "ordered" if own.bodies == "ordered" else "existing"
    x = extract_features(model(), data, pooling=own.pooling, bodies=bodies)
    wanted = logistic_regression(
        x[split.train], data.labels[split.train], x[split.test], data.labels[split.test]
    )
    assert report["accuracy"] == pytest.approx(wanted)
    assert "--recipe.pooling" in report["command"] or "pooling" not in form
    done = json.loads((tmp_path / "frozen" / "complete.json").read_text())["plan"]
    assert done["recipe"] == (form or None)


def test_a_student_pools_in_its_own_way(tmp_path: Path, data: PackedSkeletons, tune: Any) -> None:
    tune("run", "teacher", recipe=QUICK)
    recipe = {"epochs": 2, "min_frames": 4, "pooling": "regions", "bodies": "ordered"}
    config = DistillConfig(
        str(tmp_path / "teacher"), ["x"], str(tmp_path / "student"), latency=False, device="cpu", recipe=recipe,
        student={"width": 8, "depth": 1, "heads": 2},
    )  # fmt: skip
    distill(config, data=data, quiet=True)
    student = ActionClassifier.from_pretrained(tmp_path / "student")
    assert (student.pooling, student.bodies) == ("regions", "ordered")


def test_evaluated_with_people_side_by_side(tmp_path: Path, data: PackedSkeletons) -> None:
    model().save_pretrained(tmp_path / "run")
    data.save(tmp_path / "data.safetensors")
    words = ["evaluate", "--checkpoint", str(tmp_path / "run"), "--data", str(tmp_path / "data.safetensors")]
    words += [
        "--protocol",
        "finetune",
        "--bodies",
        "ordered",
        "--device",
        "cpu",
        "--finetune.pooling",
        "regions",
    ]
    words += ["--finetune.epochs", "3", "--finetune.min-frames", "4", "--finetune.hidden", "0"]
    assert main(words) == 0
    report = json.loads((tmp_path / "run" / "evaluation-data-official-finetune.json").read_text())
    assert set(report["results"]) == {"random", "encoder"}
    assert report["recipes"]["encoder"]["pooling"] == "regions"


def test_settings_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"bodies='field' adds empty bodies to a mean"):
        EvaluateConfig("run", ["data"], protocol="finetune", bodies="field", finetune={"bodies": "ordered"})
    with pytest.raises(ValueError, match=r"recipe.epochs has no effect with frozen"):
        ClassifierConfig("run", ["data"], "out", frozen=True, recipe={"pooling": "regions", "epochs": 3})
    with pytest.raises(ValueError, match="unknown pooling"):
        ClassifierConfig("run", ["data"], "out", recipe={"pooling": "region"})


def test_plans_of_earlier_versions_are_those_of_the_default() -> None:
    before = dataclasses.asdict(FinetuneConfig())
    del before["bodies"]
    assert FinetuneConfig().decisive() == before
    assert FinetuneConfig(bodies="ordered").decisive()["bodies"] == "ordered"
