from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import pytest

from fastamr import cli
from fastamr.evaluation.protocols.config import EvaluateConfig, command_line
from fastamr.evaluation.report.target import pick_target


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"protocol": "semi", "shares": [0.05, 0.5], "seeds": [0, 1, 2], "cache": False, "bodies": "field"},
        {"protocol": "finetune", "finetune": {"epochs": 3, "crop": [0.25, 1.0], "warmup_epochs": None}},
        {"protocol": "detection", "detection": {"window": 30, "iou": 0.3}, "standardize": True, "out": "a b.json"},
        {"protocol": "linear", "min_updates": 900},
        {"protocol": "transfer", "missing": "mask", "with_finetune": True, "split": "it's"},
        {"fuse": ["runs/bone", "runs/my motion"], "weights": [0.6, 0.6, 1e-3], "data": ["x.st", "y.st"]},
    ],
)  # fmt: skip
def test_the_command_asks_for_the_same_again(settings, monkeypatch):
    pytest.importorskip("jsonargparse")
    import fastamr.evaluation.evaluate  # noqa: F401

    config = EvaluateConfig(**({"checkpoint": "runs/amr", "data": ["d.st"]} | settings))
    words = shlex.split(command_line(config))
    assert words[:2] == ["fastamr", "evaluate"]
    found: list[EvaluateConfig] = []
    monkeypatch.setattr(sys.modules["fastamr.evaluation.evaluate"], "evaluate", found.append)
    assert cli.main(words[1:]) == 0
    if "crop" in config.finetune:
        found[0].finetune["crop"] = list(found[0].finetune["crop"])
    assert found == [config]


def test_the_command_names_only_what_was_chosen():
    config = EvaluateConfig(checkpoint="runs/a", data=["x.st"], seeds=[0, 1])
    assert command_line(config) == "fastamr evaluate --checkpoint runs/a --data x.st --seeds 0 1"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "evaluation-ucla-xsub-all.json"),
        ({"protocol": "knn"}, "evaluation-ucla-xsub-knn.json"),
        ({"protocol": "transfer", "data": ["a/x.st", "y.v2.st"]}, "evaluation-x+y.v2-xsub-transfer.json"),
        ({"protocol": "linear", "fuse": ["b"]}, "evaluation-ucla-xsub-linear-fused.json"),
        ({"protocol": "finetune", "fuse": ["b"]}, "evaluation-ucla-xsub-finetune-fused.json"),
        ({"data": [], "split": "a/b"}, "evaluation-a_b-all.json"),
        ({"data": ["long" * 30 + ".st"] * 3}, f"evaluation-{'long' * 20}-xsub-all.json"),
    ],
)
def test_data_splits_and_protocols_do_not_overwrite_one_another(settings, name, tmp_path, monkeypatch):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = EvaluateConfig(**({"checkpoint": "runs/a", "data": ["d/ucla.st"], "split": "xsub"} | settings))
    assert config.file_name == name
    assert pick_target(config) == Path("runs/a") / name
    assert pick_target(dataclasses.replace(config, out="b/c.json")) == Path("b/c.json")


def test_results_of_other_settings_are_kept(tmp_path):
    def write(path, config):
        path.write_text(json.dumps({"config": dataclasses.asdict(config)}))

    one = EvaluateConfig(
        str(tmp_path), ["x.st"], "detection", "official", detection={"window": 30, "iou": 0.5}
    )
    two = dataclasses.replace(one, detection={"window": 60, "iou": 0.5})
    plain = tmp_path / "evaluation-x-official-detection.json"
    second, third = (plain.with_name(f"{plain.stem}-{number}.json") for number in (2, 3))
    write(pick_target(one), one)
    assert plain.is_file()
    assert pick_target(one) == plain  # made again
    assert pick_target(dataclasses.replace(one, device="cpu", batch_size=3, cache=False)) == plain
    assert pick_target(two) == second
    write(second, two)
    assert pick_target(two) == second
    assert pick_target(dataclasses.replace(two, seeds=[1])) == third
    assert pick_target(dataclasses.replace(two, out=str(plain))) == plain  # asked for
    for other in ("{", "[]", '{"config": 3}', "{}"):
        plain.write_text(other)
        assert pick_target(one) == third


def test_what_stands_twice_is_refused():
    with pytest.raises(ValueError, match=r"seeds=\[0, 1, 0\] must hold .* none twice"):
        EvaluateConfig(checkpoint="a", data=["x"], seeds=[0, 1, 0])
    with pytest.raises(ValueError, match=r"shares=\[0.1, 0.1\] must hold .* none twice"):
        EvaluateConfig(checkpoint="a", data=["x"], shares=[0.1, 0.1])


def test_unknown_settings_of_detection():
    with pytest.raises(ValueError, match=r"unknown option of detection 'windows'.*did you mean 'window'"):
        EvaluateConfig(checkpoint="a", data=["x"], detection={"windows": 3})
    with pytest.raises(ValueError, match="window=0"):
        EvaluateConfig(checkpoint="a", data=["x"], detection={"window": 0})
