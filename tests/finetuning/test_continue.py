"""Fine-tuning that continues a classifier, and its defaults for few clips."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from fastamr.cli import main
from fastamr.data import PackedSkeletons
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.finetuning.few_clips import FEW_CLIPS, few_clips_recipe
from fastamr.models import ActionClassifier, build_model

NAMES = ("left", "middle", "right")
QUICK = {
    "epochs": 40,
    "batch_size": 16,
    "lr": 5e-3,
    "hidden": 16,
    "dropout": 0.0,
    "min_frames": 4,
    "max_angle": 0.1,
}


@pytest.fixture
def data(make_data) -> PackedSkeletons:
    return make_data(clips=60, lengths=(5, 9, 12), label_names=NAMES)


@pytest.fixture
def run(data, tmp_path):
    torch.manual_seed(0)
    model = build_model(
        "amr", layout=data.layout, frames=8, width=16, depth=2, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def tune(data, tmp_path):
    """Fine-tune from a folder into ``tmp_path / out``; returns the report."""

    def tune(start, out: str, clips: PackedSkeletons | None = None, **more):
        config = ClassifierConfig(start, ["x"], tmp_path / out, device="cpu", **({"frozen": False} | more))
        return train_classifier(config, data=data if clips is None else clips, quiet=False)

    return tune


def load(folder) -> ActionClassifier:
    return ActionClassifier.from_pretrained(folder)


def encoder_of(folder) -> dict[str, torch.Tensor]:
    return {
        name: value for name, value in load(folder).inference_state().items() if name.startswith("encoder.")
    }


# So small a learning rate that nothing moves: what a classifier starts from shows in what it ends with.
STILL = QUICK | {"epochs": 1, "lr": 1e-12, "min_lr": 0.0, "hidden": 16}


def renamed(data: PackedSkeletons, names: tuple[str, ...]) -> PackedSkeletons:
    """The same clips with the same meaning, the classes in another order."""
    order = torch.tensor([names.index(name) for name in data.label_names])
    return dataclasses.replace(data, labels=order[data.labels], label_names=names)


def test_the_same_classes_keep_the_head(tune, run, tmp_path, capsys) -> None:
    first = tune(run, "first", recipe=QUICK)
    assert first["accuracy"] > 80
    report = tune(tmp_path / "first", "second", recipe=STILL | {"label_smoothing": 0.0})
    assert report["accuracy"] == pytest.approx(first["accuracy"], abs=7)
    one, two = (load(tmp_path / folder).inference_state() for folder in ("first", "second"))
    for name in one:
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4)
    assert "continues the classifier in" in capsys.readouterr().out
    assert report["start"] == {
        "kind": "classifier",
        "head": "its head, kept",
        "chain": [str(run), str(tmp_path / "first")],
    }


def test_classes_in_another_order_sort_the_head(tune, run, tmp_path, data, capsys) -> None:
    first = tune(run, "first", recipe=QUICK)
    other = renamed(data, ("right", "left", "middle"))
    report = tune(tmp_path / "first", "second", other, recipe=STILL)
    assert report["accuracy"] == pytest.approx(first["accuracy"], abs=7)
    assert load(tmp_path / "second").class_names == ("right", "left", "middle")
    one, two = load(tmp_path / "first").head[-1], load(tmp_path / "second").head[-1]
    torch.testing.assert_close(two.weight, one.weight[[2, 0, 1]], atol=1e-5, rtol=1e-4)
    assert "sorted as the data's classes are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "recipe", "text"),
    [
        (("left", "up", "down"), {}, "the classes differ (new: up, down; gone: middle, right)"),
        ((), {}, "classes without names cannot be compared"),
        (NAMES, {"hidden": 8}, "another form is asked for"),
    ],
)
def test_other_classes_get_a_new_head(tune, run, tmp_path, data, names, recipe, text, capsys) -> None:
    tune(run, "first", recipe=QUICK)
    other = dataclasses.replace(data, label_names=names)
    report = tune(tmp_path / "first", "second", other, recipe=STILL | recipe)
    assert text in report["start"]["head"]
    assert text in capsys.readouterr().out
    one, two = encoder_of(tmp_path / "first"), encoder_of(tmp_path / "second")
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4)
    assert load(tmp_path / "second").class_names == names


def test_a_chain_and_a_frozen_end(tune, run, tmp_path, data) -> None:
    """Steps and encoder of the classifier go on, also where its encoder stays as it is."""
    tune(run, "first", recipe=QUICK)
    tune(tmp_path / "first", "second", recipe=QUICK)
    report = tune(tmp_path / "second", "third", frozen=True)
    assert report["start"]["chain"] == [str(run), str(tmp_path / "first"), str(tmp_path / "second")]
    one, two = encoder_of(tmp_path / "second"), encoder_of(tmp_path / "third")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert report["accuracy"] > 80
    again = tune(tmp_path / "third", "fourth", recipe=STILL | {"hidden": 0, "pooling": "mean"})
    assert (again["start"]["head"], len(again["start"]["chain"])) == ("its head, kept", 4)


def test_the_data_goes_through_the_steps_of_the_classifier(tune, run, tmp_path, data) -> None:
    from fastamr.data import preprocess

    tune(run, "first", preprocess(data, ["center:frame=every"]), recipe=QUICK)
    report = tune(tmp_path / "first", "second", recipe=STILL)
    assert [step["frame"] for step in report["data"]["steps"]] == ["every"]


def test_a_classifier_without_its_report(tune, run, tmp_path) -> None:
    tune(run, "first", recipe=QUICK)
    (tmp_path / "first" / "classifier.json").write_text("{")
    assert tune(tmp_path / "first", "second", recipe=STILL)["start"]["chain"] == [str(tmp_path / "first")]


def test_command(run, data, tmp_path, capsys) -> None:
    data.save(tmp_path / "data.safetensors")
    words = ["--data", str(tmp_path / "data.safetensors"), "--device", "cpu", "--recipe.epochs", "2"]
    assert main(["finetune", "--checkpoint", str(run), "--out", str(tmp_path / "one"), *words]) == 0
    assert (
        main(["finetune", "--checkpoint", str(tmp_path / "one"), "--out", str(tmp_path / "two"), *words]) == 0
    )
    assert "its head, kept" in capsys.readouterr().out


class TestFewClips:
    def test_are_said_with_the_way_out(self, tune, run, tmp_path, capsys) -> None:
        report = tune(run, "few", frozen=None, recipe={"epochs": 2})
        said = [line for line in capsys.readouterr().out.splitlines() if "few" in line]
        assert said[0].startswith("30 training clips are few (below 200)")
        assert all(word in said[0] for word in ("--no-frozen", "--recipe.", "2 epochs"))
        assert (report["recipe"]["hidden"], report["recipe"]["epochs"]) == (0, 2)
        assert "--no-frozen" in report["command"]
        assert "--recipe.hidden 0" in report["command"]

    def test_learn(self, tune, run) -> None:
        assert tune(run, "few", frozen=None, recipe={"lr": 5e-3, "min_frames": 4})["accuracy"] > 80

    @pytest.mark.parametrize("frozen", [True, False])
    def test_what_was_asked_for_wins(self, tune, run, frozen, capsys) -> None:
        report = tune(run, "out", frozen=frozen, recipe={} if frozen else {"epochs": 1})
        assert "few" not in capsys.readouterr().out
        assert report["recipe"] is None if frozen else report["recipe"]["hidden"] == 2048
        assert tune(run, "wide", frozen=None, recipe={"hidden": 8, "epochs": 1})["recipe"]["hidden"] == 8

    def test_many_clips_get_the_usual_recipe(self, tune, run, make_data, capsys) -> None:
        data = make_data(clips=2 * FEW_CLIPS, lengths=(5,), label_names=NAMES)
        report = tune(run, "out", data, frozen=None, recipe={"epochs": 1})
        assert (report["recipe"]["hidden"], report["config"]["frozen"]) == (2048, False)
        assert "few" not in capsys.readouterr().out

    @pytest.mark.parametrize(("clips", "epochs"), [(3, 150), (40, 134), (80, 100), (199, 100)])
    def test_epochs_follow_from_the_updates(self, clips, epochs) -> None:
        recipe, text = few_clips_recipe(clips, {})
        assert recipe["epochs"] == epochs
        assert f"{epochs} epochs" in text


def test_older_reports_tell_their_start(tune, run, tmp_path) -> None:
    tune(run, "first", recipe=QUICK)
    path = tmp_path / "first" / "classifier.json"
    report = json.loads(path.read_text())
    del report["start"]
    path.write_text(json.dumps(report))
    assert tune(tmp_path / "first", "second", recipe=STILL)["start"]["chain"] == [
        str(run),
        str(tmp_path / "first"),
    ]


def test_clips_that_it_was_trained_on_are_said(data, run, tmp_path, capsys) -> None:
    data.save(tmp_path / "a.safetensors")
    shared = {"frozen": True, "device": "cpu"}

    def tuned(start: str, out: str, **more: str) -> list[str]:
        config = ClassifierConfig(
            tmp_path / start, [tmp_path / "a.safetensors"], tmp_path / out, **shared, **more
        )
        return train_classifier(config, quiet=True)["warnings"]

    assert tuned("run", "first") == []
    assert tuned("first", "second") == []
    assert tuned("run", "all", train_on="all") == []
    (warning,) = tuned("all", "tested")
    assert (
        "was trained with --train-on all on a.safetensors: test clips of split 'official' may be" in warning
    )
    (warning,) = tuned("tested", "again")
    assert "all was trained with --train-on all" in warning
