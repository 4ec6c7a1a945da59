"""What is measured about the runs of the held-out subjects."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional

from fastamr.data import PackedSkeletons, Split, synthetic_actions
from fastamr.models import MODELS

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def trials() -> Iterator[ModuleType]:
    """The tool; what it registers and imports is forgotten again."""
    spec = importlib.util.spec_from_file_location(
        "results_trials", ROOT / "experiments" / "results_trials.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastamr.models.registry.MODELS", dict(MODELS))
        spec.loader.exec_module(module)
        yield module
        for name in set(sys.modules) - before:
            if name.startswith("results"):
                del sys.modules[name]


@pytest.fixture
def data(trials: ModuleType, monkeypatch: pytest.MonkeyPatch) -> PackedSkeletons:
    found = synthetic_actions(60)
    order = torch.arange(60)
    found.splits["heldout"] = Split(order < 40, (order >= 40) & (order < 55))
    found.splits["official"] = Split(order < 55, order >= 55)
    for name in ("test_data", "training_data"):
        monkeypatch.setattr(trials.results, name, lambda chosen, folder: found)
    return found


def test_probes_of_kept_features(
    trials: ModuleType,
    data: PackedSkeletons,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = trials.read_yaml(trials.results.RUNS)
    jobs = {
        (job.method, job.seed): job
        for job in trials.results.jobs(["nw_ucla_heldout"], (0, 1), runs)
        if job.variant in ("", "chosen")
    }
    # Features that name the class of every clip but the held-out ones, and features without any content.
    classes = functional.one_hot(data.labels, int(data.labels.max()) + 1).float()
    known = classes.clone()
    known[40:] = 0
    for seed in (0, 1):
        trials.results.keep_features(tmp_path, jobs["amr", seed].key, known)
    trials.results.keep_features(tmp_path, jobs["skeleton_mae", 0].key, torch.ones(60, 3))
    monkeypatch.setattr(
        trials, "SETTINGS", {"long": (False, {"lr": 1.0, "min_updates": 600}), "scaled": (True, {"lr": 1e-9})}
    )
    found = trials.find_features(tmp_path, data, ["chosen"])
    assert {name[1:]: [seed for seed, _ in one] for name, one in found.items()} == {
        ("skeleton_mae", "chosen"): [0],
        ("amr", "chosen"): [0, 1],
    }
    trials.show_probes(found, data)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("40 clips to train, 15 to test on")
    columns = [cell.strip() for cell in lines[2].strip("|").split("|")]
    row = dict(zip(columns, (cell.strip() for cell in lines[4].strip("|").split("|")), strict=True))
    held, learned = row["AMR, nw_ucla"].split(" / ")
    assert learned.startswith("100, 0.")
    assert float(held.split(" ± ")[0]) < 30
    assert "±" not in row["SkeletonMAE, nw_ucla"]
    trials.show_features(found, data)
    text = capsys.readouterr().out
    deviation = (known[:40] - known[:40].mean(0)).square().sum(1).mean().sqrt()
    assert f"| nw_ucla_heldout amr chosen | 2 | {known[:40].mean(0).norm():.1f} | {deviation:.1f} |" in text
    assert "| nw_ucla_heldout skeleton_mae chosen | 1 | 1.7 | 0.0 |" in text


def test_motion_leaves_the_test_clips_out(
    trials: ModuleType,
    data: PackedSkeletons,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = {"sets": {name: {"steps": ["center"]} for name in ("nw_ucla_heldout", "bandai_heldout")}}
    monkeypatch.setattr(trials, "read_yaml", lambda path: runs)
    trials.show_motion("nowhere")
    before = capsys.readouterr().out.splitlines()
    trained = int((data.body_clip < 55).sum())
    assert bool((data.body_clip[:trained] < 55).all())
    data.coords[int(data.offsets[trained]) :] *= 7
    trials.show_motion("nowhere")
    after = capsys.readouterr().out.splitlines()
    assert before[2] == after[2]
    assert before[3] != after[3]
    frames = torch.diff(data.offsets)[:trained].double().quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    assert before[2].startswith("| NW-UCLA | " + ", ".join(f"{one:.1f}" for one in frames.tolist()) + " |")
