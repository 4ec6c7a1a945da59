"""The command that makes shipped weights: a tiny model of generated motion, from data to registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import fastamr
from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.weights import registry, shipped
from tools import train_weights

TINY: dict[str, Any] = {
    "frames": 16, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2,
    "target_patches": 2, "guidance_windows": [4, 8],
}  # fmt: skip
RECIPE: dict[str, Any] = {
    "summary": "a tiny encoder",
    "licence": "Apache-2.0",
    "convert": "kinect20",
    "generated": {"clips": 12, "actions": ["walk", "bow"], "frames": [20, 24]},
    "sets": {
        "own": {"split": "official", "probes": {"action": "label", "side": "side"}, "about": "Own clips."}
    },
    "pretrain": {
        "model": "amr",
        "preprocess": ["center"],
        "batch_size": 8,
        "min_frames": 8,
        "architecture": TINY,
    },
    "evaluate": {"protocol": "knn"},
}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command in a folder of its own with a recipe and a registry of its own."""
    home = tmp_path / "package"
    home.mkdir()
    (home / "registry.json").write_text("{}")
    monkeypatch.setattr(registry, "HOME", home)
    monkeypatch.setattr(train_weights, "TRIED", 4)
    monkeypatch.chdir(tmp_path)
    data = synthetic_actions(24, actions=["wave", "squat", "kick"], frames=(20, 24), subjects=4)
    data.columns["side"] = torch.arange(24) % 2
    data.save(tmp_path / "own.safetensors")

    def run(*words: str, name: str = "tiny", own: str = "own.safetensors", **changes: Any) -> int:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | changes))
        given = ["--data", f"own={own}"] if own else []
        rest = ["--recipe", "recipe.yaml", "--work", "work", "--minutes", "0.02", *words]
        return train_weights.main([name, *given, *rest])

    return run


def test_from_data_to_a_model_that_loads_by_its_name(
    make: Callable[..., int], tmp_path: Path, capsys
) -> None:
    assert make() == 0
    entry = shipped()["tiny"]
    assert (entry.summary, entry.licence) == ("a tiny encoder", "Apache-2.0")
    assert "Generated motion" in entry.terms
    assert "Own clips." in entry.terms
    model = fastamr.from_pretrained("tiny")
    assert model.layout.name == "kinect20"
    assert [step.partition(":")[0] for step in model.preprocess] == ["convert", "center"]
    card = (entry.folder / "MODEL_CARD.md").read_text()
    assert "tools/train_weights.py tiny --data own=own.safetensors --minutes 0.02" in card
    for row in (
        "own: action | raw coordinates",
        "own: action | encoder |",
        "own: side | encoder, not trained",
    ):
        assert row in card
    assert all(sum256 in card for sum256 in entry.sha256.values())
    for file in (*entry.folder.iterdir(), registry.HOME / "registry.json"):
        assert str(tmp_path).encode() not in file.read_bytes()
    assert "registered" in capsys.readouterr().out


def test_all_generated_clips_and_the_training_clips_of_a_set_are_trained_on(make, tmp_path: Path) -> None:
    assert make() == 0
    lines = (tmp_path / "work" / "run" / "metrics.jsonl").read_text().splitlines()
    own = PackedSkeletons.load(tmp_path / "own.safetensors").split("official").train
    (header,) = [json.loads(line) for line in lines if "updates_per_epoch" in json.loads(line)]
    assert header["updates_per_epoch"] == (12 + int(own.sum())) // 8


def test_the_probes_take_people_that_were_not_trained_on(make, tmp_path: Path) -> None:
    assert make() == 0
    own = PackedSkeletons.load(tmp_path / "own.safetensors").split("official")
    for probe in ("own", "own-side"):
        report = json.loads((tmp_path / "work" / f"{probe}.json").read_text())
        assert report["split"]["train"] == int(own.train.sum())
        assert report["split"]["test"] == int(own.test.sum())


def test_the_time_decides_the_number_of_updates(
    make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(train_weights, "seconds_an_update", lambda settings: 1e-3)
    monkeypatch.setattr(train_weights, "pretrain", lambda config: pytest.fail(f"{config.updates} updates"))
    now = [0.0]
    monkeypatch.setattr(train_weights.time, "monotonic", lambda: now[0])
    recipe = train_weights.Recipe(summary="", licence="", pretrain=RECIPE["pretrain"])
    for left, updates in ((0.02, 18), (2.0, 1800), (-5.0, 1)):
        with pytest.raises(pytest.fail.Exception, match=f"^{updates} updates"):
            train_weights.train(recipe, ["own.safetensors"], tmp_path, left, say=lambda text: None)


def test_an_interrupted_training_goes_on(
    make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    real = train_weights.pretrain

    def interrupted(config: Any, quiet: bool = False) -> Path:
        if not quiet:
            real(config, quiet=True)
            raise KeyboardInterrupt
        return real(config, quiet=True)

    monkeypatch.setattr(train_weights, "pretrain", interrupted)
    assert make() == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert shipped() == {}
    monkeypatch.setattr(train_weights, "pretrain", real)
    monkeypatch.setattr(train_weights, "seconds_an_update", lambda settings: pytest.fail("timed again"))
    assert make() == 0
    assert "goes on; remove work to begin anew" in capsys.readouterr().out
    assert "tiny" in shipped()


def test_weights_that_are_too_large_are_refused_before_the_training(
    make, monkeypatch, tmp_path, capsys
) -> None:
    monkeypatch.setattr(registry, "MOST_BYTES", 2000)
    assert make() == 1
    assert "at most 2,000 are shipped: take a smaller width" in capsys.readouterr().err
    assert not (tmp_path / "work" / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"own": ""}, "no file for own: pass --data own=FILE"),
        ({"own": "nowhere.npz"}, "no file nowhere.npz"),
        ({"name": "../tiny"}, "must be small letters"),
        ({"pretain": {}}, "did you mean 'pretrain'"),
        ({"sets": {"own": {"spilt": "x"}}}, "did you mean 'split'"),
        ({"sets": {"owm": {"split": "official"}}}, "unknown set 'own'"),
        ({"sets": {"own": {"split": "offical", "about": ""}}}, "offical"),
        (
            {"sets": {"own": {"split": "official", "about": "", "probes": {"x": "sid"}}}},
            "did you mean 'side'",
        ),
        ({"pretrain": {"model": "amr", "batchsize": 3}}, "did you mean 'batch_size'"),
        ({"convert": "kinect21"}, "kinect21"),
    ],
)
def test_errors_are_one_line(make, changes: dict[str, Any], said: str, capsys) -> None:
    assert make(**changes) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said in line


def test_the_committed_recipe_is_sound_and_small() -> None:
    recipe = train_weights.Recipe.load(train_weights.RECIPES / "body-small.yaml")
    assert "ui_prmd" in recipe.sets
    settings = dict(recipe.pretrain)
    layout = {} if recipe.convert is None else {"layout": recipe.convert}
    config = train_weights.PretrainConfig.from_dict(settings)
    model = fastamr.models.build_model(config.model, {**layout, **config.architecture})
    assert 4 * sum(one.numel() for one in model.parameters()) < registry.MOST_BYTES
    synthetic_actions(**{**recipe.generated, "clips": 1})
