from __future__ import annotations

import shlex
import sys

import pytest

from fastamr import cli
from fastamr.evaluation.config import EvaluateConfig, command_line


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"protocol": "semi", "shares": [0.05, 0.5], "seeds": [0, 1, 2], "cache": False, "bodies": "field"},
        {"protocol": "finetune", "finetune": {"epochs": 3, "crop": [0.25, 1.0], "warmup_epochs": None}},
        {"protocol": "detection", "detection": {"window": 30, "iou": 0.3}, "standardize": True, "out": "a b.json"},
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
        ({}, "evaluation-xsub.json"),
        ({"protocol": "knn"}, "evaluation-xsub.json"),
        ({"protocol": "transfer"}, "evaluation-xsub-transfer.json"),
        ({"protocol": "linear", "fuse": ["b"]}, "evaluation-xsub-fused.json"),
        ({"protocol": "finetune", "fuse": ["b"]}, "evaluation-xsub-finetune-fused.json"),
    ],
)
def test_protocols_do_not_overwrite_one_another(settings, name):
    config = EvaluateConfig(checkpoint="runs/a", data=["x"], split="xsub", **settings)
    assert str(config.out_path) == f"runs/a/{name}"
    assert str(EvaluateConfig(checkpoint="a", data=["x"], out="b/c.json", **settings).out_path) == "b/c.json"


def test_unknown_settings_of_detection():
    with pytest.raises(ValueError, match=r"unknown option of detection 'windows'.*did you mean 'window'"):
        EvaluateConfig(checkpoint="a", data=["x"], detection={"windows": 3})
    with pytest.raises(ValueError, match="window=0"):
        EvaluateConfig(checkpoint="a", data=["x"], detection={"window": 0})
