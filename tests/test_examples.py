"""The example does what it says: somebody else's model trains with the drop-in modules, on kernels too."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fastamr
from fastamr.data import synthetic_actions
from fastamr.models import MODELS, load_pretrained
from fastamr.testing import random_clips
from fastamr.training import PretrainConfig, pretrain

from .interpreter import quicken_interpreter

quicken_interpreter()

ROOT = Path(__file__).resolve().parent.parent


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plain_mae() -> ModuleType:
    return load_example("plain_mae")


def test_plain_mae_learns(plain_mae: ModuleType) -> None:
    losses = plain_mae.train(30, "cpu")
    assert sum(losses[-10:]) / 10 < 0.9 * losses[0]


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="on a GPU machine Triton compiles and takes no CPU tensors"
)
def test_plain_mae_takes_the_same_steps_on_the_kernels(plain_mae: ModuleType) -> None:
    torch.manual_seed(0)
    expected = plain_mae.train(2, "cpu", batch=4)
    torch.manual_seed(0)
    with fastamr.backend("triton"):
        found = plain_mae.train(2, "cpu", batch=4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.fixture
def new_method(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The sixth method, known to the library for the length of a test."""
    monkeypatch.setattr("fastamr.models.registry.MODELS", dict(MODELS))
    return load_example("new_method")


def test_new_method_learns_through_pretrain(new_method: ModuleType, tmp_path: Path) -> None:
    folder = pretrain(
        PretrainConfig(
            model="two_views",
            architecture={"frames": 32, "width": 32, "depth": 1, "heads": 2, "mask_ratio": 0.75},
            out=str(tmp_path / "run"),
            updates=60,
            batch_size=16,
            min_frames=16,
            tensorboard=False,
            progress=False,
        ),
        data=synthetic_actions(128),
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.6 * losses[0] < 0.6 * math.log(16), "chance is the logarithm of the batch size"
    assert {"std/encoder", "rank/encoder"} <= next(line for line in lines if line["kind"] == "train").keys()
    assert not [line for line in lines if line["kind"] == "warning"]
    model = load_pretrained(folder)
    assert type(model) is new_method.TwoViews
    assert model.config.temperature == 0.2


def test_new_method_has_the_whole_command_line(
    new_method: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_method.main(["pretrain", "--model", "two_views", "--help-all"]) == 0
    shown = capsys.readouterr().out
    assert "--model.temperature" in shown
    assert "of the similarities" in shown


def test_new_method_is_short() -> None:
    text = (ROOT / "examples" / "new_method.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 60


def test_new_method_draws_its_second_view(new_method: ModuleType) -> None:
    model = new_method.TwoViews(frames=32, width=16, depth=1, heads=2)
    clips = random_clips(4, 32)
    keep = model.choose_visible(clips)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model(clips, keep=keep).item())
    assert losses[0] == losses[1] != losses[2]
