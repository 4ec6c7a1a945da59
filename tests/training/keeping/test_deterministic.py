"""The same seed, machine and threads give the same bits; what --deterministic asks of PyTorch, cuBLAS and kernels."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fastamr
from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.devices import deterministic
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.export import load_predictor
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig
from fastamr.training import PretrainConfig, pretrain

ROOT = Path(__file__).resolve().parents[3]
VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
MODELS = ("amr", "mamp", "gfp", "skeleton_mae", "asma", "slim")
SIZES: dict[str, Any] = {"frames": 48, "width": 64, "depth": 2, "heads": 2, "decoder_width": 64}
SIZES |= {"decoder_depth": 1, "decoder_heads": 2}
RECIPE = {"epochs": 2, "batch_size": 16, "min_frames": 16, "hidden": 16}


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def motion() -> PackedSkeletons:
    return synthetic_actions(60, seed=0, frames=(40, 60))


def train(model: str, data: PackedSkeletons, out: Path, **options: Any) -> Path:
    given: dict[str, Any] = {
        "updates": 2,
        "batch_size": 16,
        "min_frames": 16,
        "warmup_epochs": 0,
        "device": "cpu",
    }
    given |= {"progress": False, "tensorboard": False} | options
    small = {"frames": 24, "hidden": 8, "projector": 16, "width": 32, "heads": 2}
    few = {"prototypes": 64, "head_hidden": 32, "bottleneck": 16, "local_crops": 2}
    own = {"asma": small, "gfp": {**SIZES, "levels": (2, 4, 12)}, "slim": {**SIZES, **few}}
    sizes = own.get(model, SIZES)
    return pretrain(
        PretrainConfig(model=model, architecture=sizes, out=str(out), **given), data=data, quiet=True
    )


def digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "backend"), [*((model, "auto") for model in MODELS), ("skeleton_mae", "reference")]
)
def test_pre_training_repeats_to_the_bit(
    model: str, backend: str, motion: PackedSkeletons, tmp_path: Path
) -> None:
    """Two threads, and products large enough that they share the work."""
    torch.set_num_threads(2)
    with fastamr.backend(backend):
        runs = [train(model, motion, tmp_path / str(count)) for count in range(2)]
    assert len({digest(run / "model.safetensors") for run in runs}) == 1


@pytest.mark.slow
def test_what_follows_repeats_to_the_bit(motion: PackedSkeletons, tmp_path: Path) -> None:
    """Fine-tuning, distillation, evaluation and prediction."""
    torch.set_num_threads(2)
    run = str(train("mamp", motion, tmp_path / "run"))
    found = []
    for place in (tmp_path / "a", tmp_path / "b"):
        given = ClassifierConfig(
            run, ["x"], str(place / "classifier"), frozen=False, recipe=RECIPE, device="cpu"
        )
        train_classifier(given, data=motion, quiet=True)
        student = DistillConfig(
            str(place / "classifier"), ["x"], str(place / "student"), device="cpu", recipe=RECIPE,
            student={"width": 24, "depth": 1, "heads": 2},
        )  # fmt: skip
        distill(student, data=motion, quiet=True)
        settings = EvaluateConfig(
            run, ["x"], out=str(place / "e.json"), cache=False, device="cpu", min_updates=5
        )
        scores = evaluate(settings, data=motion, quiet=True)["results"]
        answers = load_predictor(str(place / "classifier")).predict(motion.select(list(range(8))))
        files = [digest(file) for file in sorted(place.rglob("model.safetensors"))]
        found.append((files, scores, [str(answer) for answer in answers]))
    assert len(found[0][0]) >= 3
    assert found[0] == found[1]


def test_every_command_asks_for_it(
    motion: PackedSkeletons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    class Enough(Exception):
        pass

    def look(*_: Any, **__: Any) -> None:
        cudnn = torch.backends.cudnn
        seen.append((torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark))
        raise Enough

    for module, name in (
        ("training.pretrain", "_pretrain"),
        ("evaluation.evaluate", "_evaluate"),
        ("finetuning.classifier", "_train_classifier"),
        ("finetuning.distill", "_distill"),
    ):
        monkeypatch.setattr(importlib.import_module(f"fastamr.{module}"), name, look)
    out = str(tmp_path / "out")
    calls: list[Any] = [
        lambda: pretrain(PretrainConfig(out=out, deterministic=True)),
        lambda: evaluate(EvaluateConfig("run", ["x"], deterministic=True)),
        lambda: train_classifier(ClassifierConfig("run", ["x"], out, deterministic=True)),
        lambda: distill(DistillConfig("run", ["x"], out, deterministic=True)),
    ]
    torch.backends.cudnn.benchmark = True
    for call in calls:
        with pytest.raises(Enough):
            call()
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    assert seen == [(True, True, False)] * 4


@pytest.mark.parametrize("model", MODELS)
def test_a_run_on_a_cpu_is_the_same_with_it(model: str, motion: PackedSkeletons, tmp_path: Path) -> None:
    """PyTorch knows no operation of the models that has no order, and a CPU computes the same bits anyway."""
    options: dict[str, Any] = {"updates": 1, "batch_size": 8}
    plain = train(model, motion, tmp_path / "plain", **options)
    fixed = train(model, motion, tmp_path / "fixed", deterministic=True, **options)
    assert digest(plain / "model.safetensors") == digest(fixed / "model.safetensors")


class TestWorkspaces:
    def test_they_are_fixed_before_cuda_starts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
        monkeypatch.setenv(VARIABLE, "")
        monkeypatch.delenv(VARIABLE)
        with deterministic(True, "cpu"):
            assert VARIABLE not in os.environ
        with deterministic(False, "cuda"):
            assert VARIABLE not in os.environ
            assert not torch.are_deterministic_algorithms_enabled()
        with deterministic(True, "cuda"):
            assert os.environ[VARIABLE] == ":4096:8"
        assert os.environ[VARIABLE] == ":4096:8", "cuBLAS keeps them for the rest of the process"
        monkeypatch.setenv(VARIABLE, ":16:8")
        with deterministic(True, "cuda"):
            assert os.environ[VARIABLE] == ":16:8"

    def test_too_late_or_others_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        with (
            pytest.raises(ValueError, match="export CUBLAS_WORKSPACE_CONFIG=:4096:8 before"),
            deterministic(True),
        ):
            pass
        monkeypatch.setenv(VARIABLE, ":0:0")
        with (
            pytest.raises(ValueError, match="':0:0' is not deterministic, expected :4096:8 or"),
            deterministic(True),
        ):
            pass
        assert not torch.are_deterministic_algorithms_enabled()


def test_our_gpu_kernels_have_no_sums_without_an_order() -> None:
    """No atomic operation in Triton or CUDA; the words of all that could hide one."""
    words = re.compile(
        r"\batomic\w*\(|\btl\.atomic|\bred\.(global|shared|async)|\batom\.|reduce_async|multimem", re.I
    )
    files = [*(ROOT / "kernels").glob("*.py"), *(ROOT / "csrc/cuda").iterdir(), ROOT / "csrc/torch_cuda.cpp"]
    assert len(files) > 25
    found = [
        f"{file.name}: {hit[0]}" for file in files for hit in words.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []
    assert words.search("tl.atomic_add(p, x)")
    assert words.search("atomicAdd(p, x)")
    assert words.search('asm("red.global.add.f32 [%0], %1;")')


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS)
def test_a_gpu_repeats_to_the_bit(model: str, motion: PackedSkeletons, tmp_path: Path) -> None:
    """Eager updates and recorded ones, in two processes' worth of runs."""
    os.environ[VARIABLE] = ":4096:8"
    options: dict[str, Any] = {"updates": 12, "device": "cuda", "deterministic": True}
    runs = [train(model, motion, tmp_path / str(count), **options) for count in range(2)]
    assert len({digest(run / "model.safetensors") for run in runs}) == 1
