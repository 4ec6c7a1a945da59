"""The study of distillation: what a run and a trial see, what is chosen, and what is kept."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fastamr.data import PackedSkeletons
from fastamr.models import MODELS

from ..models.body.sets import pack

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The tool, with tiny models and generated motion; what it registers and imports is forgotten again."""
    spec = importlib.util.spec_from_file_location("distillation", ROOT / "experiments" / "distillation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    monkeypatch.setattr("fastamr.models.registry.MODELS", dict(MODELS))
    monkeypatch.setitem(sys.modules, "distillation", module)
    spec.loader.exec_module(module)
    sizes = {"width": 8, "depth": 1, "heads": 1, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 1}
    small = sizes | {"layout": "body", "frames": 8, "target_patches": 1, "guidance_windows": [2]}
    monkeypatch.setattr(module, "MODEL", small)
    monkeypatch.setattr(module, "STUDENT", {"width": 8, "depth": 1, "heads": 1})
    monkeypatch.setattr(module, "GRID", [(1.0, 0.5), (2.0, 0.5)])
    monkeypatch.setattr(module, "read", lambda path: recorded(module, path.stem))
    yield module
    for name in set(sys.modules) - before:
        if name.startswith("results"):
            del sys.modules[name]


def recorded(module: ModuleType, name: str, clips: int = 24) -> PackedSkeletons:
    """A set of two classes, whose training half has four subjects; it stands for the recorded one of that name."""
    data = pack("sbu15" if name == "kard" else "kinect20", seed=module.SETS.index(name), clips=clips)
    subjects = [1, 3, *module.HELD_OUT[name][:2]]
    data.columns = {"subject": torch.tensor([subjects[place // 3 % 4] for place in range(clips)])}
    return data


def test_a_trial_knows_nothing_of_the_test_clips(study: ModuleType) -> None:
    data = study.with_splits(recorded(study, "utkinect"), study.HELD_OUT["utkinect"])
    official, held = data.splits["official"], data.splits["heldout"]
    assert not (official.test & (held.train | held.test)).any()
    assert torch.equal(held.train | held.test, official.train)
    subjects = data.columns["subject"]
    assert not set(subjects[held.train].tolist()) & set(subjects[held.test].tolist())
    given = study.training_half(data)
    assert (given.labels[official.test] == -1).all()
    assert list(given.splits) == ["heldout"]


def test_the_best_mean_of_the_trials_is_chosen(study: ModuleType) -> None:
    records = [
        {"kind": kind, "set": name, "temperature": t, "soft": 0.5, "results": {"unlabelled": found, "distilled": 99}}
        for kind, name, t, found in (
            ("trial", "kard", 1.0, 50), ("trial", "kard", 1.0, 60), ("trial", "kard", 2.0, 70),
            ("trial", "kard", 2.0, 44), ("run", "kard", 4.0, 90), ("trial", "nw_ucla", 4.0, 80),
        )
    ]  # fmt: skip
    assert study.choice(records, "kard") == (2.0, 0.5)
    assert study.choice(records, "utkinect") is None


@pytest.mark.slow
def test_trials_runs_and_tables(study: ModuleType, tmp_path: Path, capsys: Any) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "sklearn"):
        pytest.importorskip(package)
    out = tmp_path / "out.jsonl"
    words = [
        "--out",
        str(out),
        "--work",
        str(tmp_path / "work"),
        "--sets",
        "utkinect",
        "--shares",
        "0.5",
        "--seeds",
        "0",
    ]
    words += ["--updates", "2", "--student-updates", "2", "--epochs", "1"]
    assert study.main([*words, "--choose"]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["kind"] for record in records] == ["trial", "trial", "run"]
    run = records[-1]
    assert (run["temperature"], run["soft"]) == study.choice(records, "utkinect")
    # Half of 16 training clips have a label; the others, and the training halves of four other sets, teach without.
    assert run["clips"] == {"train": 8, "test": 8, "unlabelled": 8 + 4 * 16}
    assert set(run["results"]) == set(study.KINDS)
    assert min(run["parameters"][name] for name in ("teacher", "student")) > 1000
    assert all(value > 0 for engines in run["latency_ms"].values() for value in engines.values())
    capsys.readouterr()
    assert study.main([*words, "--choose"]) == 0  # nothing is left
    assert len(out.read_text().splitlines()) == 3
    assert study.main([*words, "--choose", "--list"]) == 0
    assert capsys.readouterr().out.count("done ") == 3
    assert study.main([*words, "--report"]) == 0
    shown = capsys.readouterr().out
    assert "| utkinect | 50 % | 8 + 72 | 1 |" in shown
    assert "student, distilled, with unlabelled clips" in shown
    assert "ONNX Runtime, 1 clip" in shown
    assert "Trials, on held-out subjects of the training half" in shown
