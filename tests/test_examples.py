"""The examples do what they say; the six of the tutorial fit on a page each."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
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


SIX = (
    "plain_mae",
    "pretrain_and_probe",
    "several_processes",
    "own_layout",
    "distill_and_export",
    "live_camera",  # see test_live_camera.py
)


@pytest.mark.parametrize("name", SIX)
def test_the_six_of_the_tutorial_are_a_page_each(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert f"examples/{name}.py" in text.split('"""')[1], "says how it is called"


def test_the_page_names_every_example() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f"`{path.name}`" not in text] == []


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


def test_a_layout_of_ones_own_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = load_example("own_layout").main(["--out", str(tmp_path / "run"), "--updates", "10"])
    assert accuracy >= 75, "the two motions differ in one axis, chance is 50"
    assert load_pretrained(tmp_path / "run").layout.pairs == ((3, 4),)
    assert "1-NN on 20 clips of a lamp that nods or looks around" in capsys.readouterr().out


@pytest.mark.slow
def test_pretrain_and_probe_then_distill_and_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    run = str(tmp_path / "run")
    accuracy = load_example("pretrain_and_probe").main(["--clips", "64", "--updates", "4", "--out", run])
    shown = capsys.readouterr().out
    table = re.search(r"^AMR +([\d.]+) ", shown, re.MULTILINE)
    assert table is not None
    assert float(table[1]) == pytest.approx(accuracy, abs=0.05)
    last = re.fullmatch(r"(\S+) resembles (\S+), (\S+), (\S+)", shown.splitlines()[-1])
    assert last is not None
    assert len(set(last.groups())) == 4
    out = tmp_path / "student"
    words = [run, "--clips", "64", "--epochs", "1", "--out", str(out)]
    path = load_example("distill_and_export").main(words)
    shown = capsys.readouterr().out
    assert path == out / "student.onnx"
    assert f"{path}: {path.stat().st_size / 1024:.0f} KiB, at most " in shown
    assert re.search(r"^\S+ .* %; it is \w+$", shown, re.MULTILINE)
    small, large = ((out / name / "model.safetensors").stat().st_size for name in ("student", "teacher"))
    assert small < large / 2


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(tmp_path: Path) -> None:
    synthetic_actions(24).save(tmp_path / "data.safetensors")
    words = [
        "--data",
        str(tmp_path / "data.safetensors"),
        "--device",
        "cpu",
        "--updates",
        "4",
        "--batch-size",
        "8",
    ]
    example = load_example("several_processes")
    alone = example.main([*words, "--out", str(tmp_path / "one")])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         ROOT / "examples" / "several_processes.py", *words, "--out", str(tmp_path / "two")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes: loss ") == 1
    torch.testing.assert_close(example.losses(tmp_path / "two"), alone, rtol=1e-4, atol=0)
