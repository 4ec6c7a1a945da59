"""Every command that takes a checkpoint takes a shipped model and a repository; ``fastamr models``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastamr import cli
from fastamr.data import synthetic_actions
from fastamr.evaluation import evaluate as evaluation
from fastamr.models import ActionClassifier
from fastamr.weights import hub, shipped

from .conftest import tiny

SHORT = ["--recipe.epochs", "1", "--recipe.warmup-epochs", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A packed file of 24 generated clips of three classes."""
    path = tmp_path_factory.mktemp("data") / "own.safetensors"
    data = synthetic_actions(24, actions=["wave", "squat", "kick"], frames=(20, 24), subjects=4)
    data.save(path)
    return str(path)


@pytest.fixture(params=["body-small", "owner/name@v1"])
def name(request, ships: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A shipped model's name, or that of a repository, whose files come from a stand-in for the Hub."""
    torch.manual_seed(0)
    folder = ships("body-small", tiny())
    monkeypatch.setattr(hub, "_fetched", lambda repository, file, revision: folder / file)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return request.param


@pytest.fixture
def untouched(ships: Callable[..., Path], tmp_path: Path) -> Callable[[], bool]:
    """Tell whether nothing was written into the package."""
    return lambda: sorted(path.name for path in (tmp_path / "package" / "body-small").iterdir()) == [
        "MODEL_CARD.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def test_finetune_in_one_line_and_predict(name: str, motion: str, untouched, capsys) -> None:
    assert cli.main(["finetune", "--model", name, "--data", motion, *SHORT]) == 0
    report = json.loads(Path("classifier/classifier.json").read_text(encoding="utf-8"))
    assert report["config"]["checkpoint"] == name
    assert report["start"]["chain"] == [name]
    assert f"--checkpoint {name}" in report["command"]
    assert [step["name"] for step in ActionClassifier.from_pretrained("classifier").steps] == ["center"]
    assert cli.main(["finetune", "--model", name, "--data", motion, *SHORT, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert cli.main(["finetune", "--model", name, "--data", motion, *SHORT]) == 1
    assert "out 'classifier' already holds a model" in capsys.readouterr().err
    assert cli.main(["predict", motion, "--model", "classifier", "--top", "1"]) == 0
    assert untouched()


def test_evaluate(name: str, motion: str, untouched, capsys) -> None:
    words = ["evaluate", "--checkpoint", name, "--data", motion, "--protocol", "knn", "--device", "cpu"]
    assert cli.main(words) == 1
    assert f"checkpoint {name!r} is no folder that results may be written into" in capsys.readouterr().err
    assert cli.main([*words, "--out", "result.json"]) == 0
    report = json.loads(Path("result.json").read_text(encoding="utf-8"))
    assert report["config"]["checkpoint"] == name
    assert report["data"]["steps"][0]["name"] == "center"
    assert [path.name for path in Path().iterdir()] == ["result.json"]
    assert cli.main(["table", "result.json"]) == 0
    assert name in capsys.readouterr().out
    assert untouched()


def test_evaluate_several_streams(name: str, motion: str, untouched) -> None:
    tiny().save_pretrained("own")
    words = ["evaluate", "--checkpoint", "own", "--fuse", name, "--data", motion, "--protocol", "knn"]
    assert cli.main([*words, "--device", "cpu"]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["own"]
    assert (Path("own") / evaluation.CACHE_FOLDER).is_dir()
    assert untouched()


def test_distill(name: str, motion: str, untouched) -> None:
    words = ["distill", "--teacher", name, "--data", motion, "--out", "small", "--seeds", "0", "--no-latency"]
    words += ["--student.width", "8", "--student.depth", "1", "--student.heads", "1", *SHORT]
    assert cli.main(words) == 0
    assert json.loads(Path("small/distill.json").read_text(encoding="utf-8"))["config"]["teacher"] == name
    assert untouched()


@pytest.mark.slow
def test_a_classifier_as_teacher_start_and_predictor(ships, motion: str, tmp_path: Path, monkeypatch) -> None:
    data = synthetic_actions(3, actions=["wave", "squat", "kick"])
    ships("three", ActionClassifier(tiny(), 3, class_names=data.label_names).eval())
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict", motion, "--model", "three", "--json", "--out", "answers.jsonl"]) == 0
    assert len(Path("answers.jsonl").read_text(encoding="utf-8").splitlines()) == 24
    assert cli.main(["finetune", "--model", "three", "--data", motion, "--out", "own", *SHORT]) == 0
    assert (
        json.loads(Path("own/classifier.json").read_text(encoding="utf-8"))["start"]["kind"] == "classifier"
    )
    words = [
        "distill",
        "--teacher",
        "three",
        "--data",
        motion,
        "--out",
        "small",
        "--seeds",
        "0",
        "--no-latency",
    ]
    words += ["--student.width", "8", "--student.depth", "1", "--student.heads", "1", *SHORT]
    assert cli.main(words) == 0


@pytest.mark.slow
def test_show_plot_and_export(name: str, motion: str, untouched) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["show", motion, "--checkpoint", name, "--out", "clip.png", "--frames", "3"]) == 0
    assert cli.main(["plot", name, "--out", "pictures", "--data", motion, "--embedding", "pca"]) == 0
    assert Path("pictures/embedding.png").is_file()
    assert cli.main(["export", name, "--torch-export", "encoder.pt2"]) == 0
    assert untouched()


def test_pictures_of_a_shipped_model_need_data(name: str, capsys) -> None:
    pytest.importorskip("matplotlib")
    assert cli.main(["plot", name, "--out", "pictures", "--attention"]) == 1
    assert "name packed files with --data" in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    "finetune --model body-smal --data synthetic", "evaluate --checkpoint body-smal --data synthetic",
    "export body-smal --torch-export x.pt2", "distill --teacher body-smal --data synthetic --out x",
    "predict MOTION --model body-smal", "show MOTION --checkpoint body-smal --out x.png",
    "plot body-smal --out x --embedding pca", "evaluate --checkpoint body-small --fuse body-smal --data synthetic",
])  # fmt: skip
def test_a_mistyped_name_is_one_line(
    words: str, body_small: Path, motion: str, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.replace("MOTION", motion).split()) == 1
    said = capsys.readouterr().err.splitlines()
    assert "did you mean 'body-small'?" in said[-1]
    assert sum(line.startswith("error: ") for line in said) == 1


class TestModels:
    def test_the_list_the_card_and_json(self, body_small: Path, capsys) -> None:
        assert cli.main(["models"]) == 0
        text = capsys.readouterr().out
        for part in (
            "body-small",
            "amr",
            "ntu25",
            "Apache-2.0",
            "a tiny model",
            "generated motion",
            str(body_small),
        ):
            assert part in text
        assert cli.main(["models", "body-small"]) == 0
        assert "Its card." in capsys.readouterr().out
        assert cli.main(["models", "--json"]) == 0
        (facts,) = json.loads(capsys.readouterr().out)
        assert facts["sha256"] == shipped()["body-small"].sha256
        assert (facts["layout"], facts["preprocess"], facts["folder"]) == (
            "ntu25",
            ["center"],
            str(body_small),
        )

    def test_nothing_shipped(self, ships: Callable[..., Path], capsys) -> None:
        assert cli.main(["models"]) == 0
        assert "comes without weights" in capsys.readouterr().out
        assert cli.main(["models", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []
        assert cli.main(["models", "body-small"]) == 1
        assert "comes without weights" in capsys.readouterr().err

    def test_an_unknown_name(self, body_small: Path, capsys) -> None:
        assert cli.main(["models", "body-smal"]) == 2
        assert "did you mean 'body-small'?" in capsys.readouterr().err

    def test_a_replaced_file(self, body_small: Path, capsys) -> None:
        tiny(frames=24).save_pretrained(body_small)
        for words in (["models"], ["models", "body-small"], ["models", "--json"]):
            assert cli.main(words) == 1
            assert "is not the file that was shipped" in capsys.readouterr().err

    def test_it_needs_no_torch(self, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        assert cli.main(["models"]) == 0
