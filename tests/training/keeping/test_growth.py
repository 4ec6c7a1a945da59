"""Nothing grows with the number of updates, runs, evaluations or answers: memory, open files, threads, left files."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fastamr.data import synthetic_actions
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.export import load_predictor
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.update.step import PretrainStep

STATUS = Path("/proc/self/status")
linux = pytest.mark.skipif(
    not STATUS.is_file(), reason="only Linux tells memory, files and threads of a process"
)


class State(NamedTuple):
    """What a process holds: bytes in memory, open files, threads of Python and of the system, temporary files."""

    memory: int
    files: int
    threads: int
    system_threads: int
    temporary: int


def state() -> State:
    gc.collect()
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines())
    memory, tasks = (int(lines[name].split()[0]) for name in ("VmRSS", "Threads"))
    count = sum(len(files) + len(folders) for _, folders, files in os.walk(tempfile.gettempdir()))
    return State(memory * 1024, len(os.listdir("/proc/self/fd")), threading.active_count(), tasks, count)


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def check(before: State, after: State, most: int) -> None:
    """Everything but memory is as it was; memory grew by less than ``most`` bytes."""
    print(f"before {before}, after {after}, {(after.memory - before.memory) / 2**20:+.2f} MiB")
    assert after[1:] == before[1:]
    assert after.memory - before.memory < most


@linux
@pytest.mark.parametrize("budget", [None, 0.0], ids=["resident", "fetched"])
@pytest.mark.parametrize(
    "updates", [pytest.param(4_000, marks=pytest.mark.slow), pytest.param(20_000, marks=pytest.mark.long)]
)
def test_many_updates(
    updates: int,
    budget: float | None,
    tiny: Any,
    make_skeletons: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With readings of the loss, checkpoints, probes and TensorBoard; a model that computes next to nothing."""
    pytest.importorskip("tensorboard")
    seen: dict[int, State] = {}
    call = PretrainStep.__call__

    def measured(step: PretrainStep, *arguments: Any) -> Any:
        result = call(step, *arguments)
        if step.update in (updates // 4, updates):
            seen[step.update] = state()
        return result

    monkeypatch.setattr(PretrainStep, "__call__", measured)
    config = PretrainConfig(
        model="tiny", out=str(tmp_path / "run"), updates=updates, batch_size=4, min_frames=8, log_every=10,
        checkpoint_every=250, probe_every=250, data_budget=budget, device="cpu", progress=False,
    )  # fmt: skip
    pretrain(config, data=make_skeletons(), quiet=True)
    # A quarter of what the smallest thing that an update makes takes, a clip of 16 frames.
    check(seen[updates // 4], seen[updates], updates * 3 // 4 * 16 * 25 * 3 * 4 // 4)


def repeated(once: Callable[[int], None], warm: int, count: int, most: int) -> None:
    for turn in range(warm):
        once(turn)
    before = state()
    for turn in range(warm, warm + count):
        once(turn)
    check(before, state(), most)


@pytest.mark.slow
@linux
def test_many_runs_in_one_process(tiny: Any, skeletons: Any, tmp_path: Path) -> None:
    """Each with its own folder, lock, TensorBoard file, signal handlers and progress bar; every other one fetches."""
    pytest.importorskip("tensorboard")

    def once(turn: int) -> None:
        config = PretrainConfig(
            model="tiny", out=str(tmp_path / f"run{turn}"), updates=5, batch_size=4, min_frames=8, device="cpu",
            data_budget=None if turn % 2 else 0.0, warmup_epochs=0,
        )  # fmt: skip
        pretrain(config, data=skeletons, quiet=True)

    repeated(once, 10, 20, 4 << 20)


def _evaluations_and_answers(folder: str, warm: int, count: int) -> None:
    tempfile.tempdir = f"{folder}/tmp"
    data = synthetic_actions(40, seed=0, frames=(16, 24))
    file, run, classifier = (f"{folder}/{name}" for name in ("data.safetensors", "run", "classifier"))
    data.save(file)
    sizes = {"frames": 8, "width": 16, "depth": 1, "heads": 1, "decoder_width": 16, "decoder_depth": 1}
    given: dict[str, Any] = {"model": "mamp", "architecture": {**sizes, "decoder_heads": 1}, "min_frames": 8}
    pretrain(
        PretrainConfig(out=run, data=[file], updates=2, warmup_epochs=0, device="cpu", **given), quiet=True
    )

    def once(turn: int) -> None:
        settings = {"seeds": [0], "cache": turn % 2 == 0, "device": "cpu", "out": f"{folder}/e.json"}
        evaluate(EvaluateConfig(run, [file], protocol="all", **settings), quiet=True)  # type: ignore[arg-type]
        recipe = {"epochs": 1, "min_frames": 8, "hidden": 0}
        options = {"frozen": False, "recipe": recipe, "device": "cpu", "overwrite": turn > 0}
        train_classifier(ClassifierConfig(run, [file], classifier, **options), quiet=True)  # type: ignore[arg-type]
        assert len(list(load_predictor(classifier).predict(data))) == data.num_clips

    # 10 rounds kept 11 MB while `explain` left its activations behind.
    repeated(once, warm, count, 6 << 20)


@pytest.mark.slow
@linux
def test_evaluations_and_answers(tmp_path: Path) -> None:
    """In a process of its own, as the heap that thousands of other tests left decides what 1 MB costs."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        pool.submit(_evaluations_and_answers, str(tmp_path), 3, 10).result()
