"""A fine-tuning or distillation that ends early goes on to the same bits, and keeps what shows why it diverged."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fastamr.data import PackedSkeletons
from fastamr.finetuning import distill as distill_module
from fastamr.finetuning.classifier import ClassifierConfig, train_classifier
from fastamr.finetuning.distill import distill
from fastamr.finetuning.distill_config import DistillConfig
from fastamr.finetuning.fitting.keeping import STATE_FILES, FitKeeper
from fastamr.finetuning.fitting.learner import Learner
from fastamr.models import build_model
from fastamr.training.diverged import Batch
from fastamr.training.update.step import PretrainStep

RECIPE = {
    "epochs": 4,
    "batch_size": 6,
    "lr": 5e-3,
    "hidden": 16,
    "dropout": 0.2,
    "drop_path": 0.2,
    "mixup": 0.5,
}
RECIPE |= {"min_frames": 4}
DISTIL = {"epochs": 4, "batch_size": 6, "lr": 5e-3, "min_frames": 4, "dropout": 0.2}


@pytest.fixture
def data(make_data: Any) -> PackedSkeletons:
    return make_data(clips=36, lengths=(5, 9, 12))


@pytest.fixture
def run(tmp_path: Path, data: PackedSkeletons) -> Path:
    torch.manual_seed(0)
    model = build_model(
        "amr", layout=data.layout, frames=8, width=16, depth=2, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"steps": ["center"]}))
    return tmp_path / "run"


def tuning(run: Path, out: Path, **more: Any) -> ClassifierConfig:
    recipe = RECIPE | more.pop("recipe", {})
    options = {"frozen": False, "device": "cpu", "checkpoint_every": 1} | more
    return ClassifierConfig(checkpoint=str(run), data=["x"], out=str(out), recipe=recipe, **options)


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


class Stopped(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, update: int, error: type[BaseException] = Stopped) -> None:
    """Let the process end before an update, as a kill does."""
    step = PretrainStep.__call__

    def until(self: PretrainStep, *inputs: Any) -> Any:
        if self.update == update:
            raise error
        return step(self, *inputs)

    monkeypatch.setattr(PretrainStep, "__call__", until)


@pytest.mark.parametrize("update", [0, 2, 3, 7])
def test_a_fine_tuning_that_is_killed_goes_on_to_the_bit(
    run: Path, data: PackedSkeletons, tmp_path: Path, update: int
) -> None:
    whole = train_classifier(tuning(run, tmp_path / "whole"), data=data, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, update)
        with pytest.raises(Stopped):
            train_classifier(tuning(run, tmp_path / "cut"), data=data, quiet=True)
    assert not (tmp_path / "cut" / "complete.json").exists()
    if update > 3:
        with pytest.raises(FileExistsError, match=r"was cut short.*--resume.*--overwrite"):
            train_classifier(tuning(run, tmp_path / "cut"), data=data, quiet=True)
    report = train_classifier(tuning(run, tmp_path / "cut", resume=True), data=data, quiet=True)
    assert report["accuracy"] == whole["accuracy"]
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    assert not any((tmp_path / "cut" / name).exists() for name in STATE_FILES)
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    wanted = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    found, expected = (
        [(line["epoch"], line["loss"]) for line in some if line["kind"] == "train"]
        for some in (lines, wanted)
    )
    assert found == expected
    assert [epoch for epoch, _ in found] == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_in_the_middle_of_an_epoch_and_resume_goes_on_to_the_bit(
    run: Path, data: PackedSkeletons, tmp_path: Path, number: signal.Signals
) -> None:
    options: dict[str, Any] = {"checkpoint_every": 0}
    train_classifier(tuning(run, tmp_path / "whole"), data=data, quiet=True)
    step = PretrainStep.__call__

    def signalled(self: PretrainStep, *inputs: Any) -> Any:
        if self.update == 4:
            os.kill(os.getpid(), number)
        return step(self, *inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainStep, "__call__", signalled)
        with pytest.raises(KeyboardInterrupt, match=r"stopped after update 5; continue with --resume"):
            train_classifier(tuning(run, tmp_path / "cut", **options), data=data, quiet=True)
    assert (tmp_path / "cut" / "state.safetensors").exists()
    assert not (tmp_path / "cut" / "config.json").exists()
    train_classifier(tuning(run, tmp_path / "cut", resume=True, **options), data=data, quiet=True)
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


def test_a_run_that_is_complete_is_told_and_left(
    run: Path, data: PackedSkeletons, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    report = train_classifier(tuning(run, out), data=data, quiet=True)
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = train_classifier(tuning(run, out, resume=True), data=data)
    assert "is complete" in capsys.readouterr().out
    assert again == json.loads(json.dumps(report))
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="cannot resume: seed was 0 and is now 1"):
        train_classifier(tuning(run, out, resume=True, seed=1), data=data, quiet=True)
    (out / "complete.json").unlink()
    with pytest.raises(FileExistsError, match="a model without a checkpoint to continue from"):
        train_classifier(tuning(run, out, resume=True), data=data, quiet=True)


def test_resume_refuses_another_run_and_says_what_it_changes(
    run: Path, data: PackedSkeletons, tmp_path: Path, make_data: Any, capsys: Any
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Stopped):
            train_classifier(tuning(run, out), data=data, quiet=True)
    with pytest.raises(ValueError, match=r"cannot resume: recipe was .* and is now"):
        train_classifier(tuning(run, out, resume=True, recipe={"lr": 1e-3}), data=data, quiet=True)
    with pytest.raises(ValueError, match=r"cannot resume: (data|head|checkpoint)"):
        train_classifier(tuning(run, out, resume=True), data=make_data(clips=33, lengths=(5,)), quiet=True)
    train_classifier(tuning(run, out, resume=True, precision="bfloat16"), data=data)
    assert "resumed, but not the same run to the bit: precision was float32 and is now bfloat16" in (
        capsys.readouterr().err
    )


def test_overwrite_starts_anew(run: Path, data: PackedSkeletons, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(Stopped):
            train_classifier(tuning(run, tmp_path / "out"), data=data, quiet=True)
    train_classifier(tuning(run, tmp_path / "out", overwrite=True), data=data, quiet=True)
    train_classifier(tuning(run, tmp_path / "other"), data=data, quiet=True)
    assert same_weights(tmp_path / "out", tmp_path / "other")


@pytest.mark.parametrize("kind", ["distilled", "labels"])
def test_a_student_that_is_killed_goes_on_to_the_bit(
    run: Path, data: PackedSkeletons, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("sklearn")

    def asked(out: str, **more: Any) -> DistillConfig:
        student = {"width": 8, "depth": 1, "heads": 2}
        return DistillConfig(
            teacher=str(run), data=["x"], out=str(tmp_path / out), student=student, recipe=DISTIL, device="cpu",
            latency=False, checkpoint_every=1, **more,
        )  # fmt: skip

    whole = distill(asked("whole"), data=data, quiet=True)
    train = distill_module._train

    def cut(*arguments: Any) -> Any:
        if arguments[1] == kind:
            with pytest.MonkeyPatch.context() as inner:
                stop_at(inner, 6)
                return train(*arguments)
        return train(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill_module, "_train", cut)
        with pytest.raises(Stopped):
            distill(asked("cut"), data=data, quiet=True)
    folder = tmp_path / "cut" / "students" / f"{kind}-0"
    assert (folder / "state.safetensors").exists()
    report = distill(asked("cut", resume=True), data=data, quiet=True)
    for each in ("distilled", "labels"):
        assert report["results"][each]["per_seed"] == whole["results"][each]["per_seed"]
        name = f"students/{each}-0"
        assert same_weights(tmp_path / "cut" / name, tmp_path / "whole" / name)
    assert not (folder / "state.safetensors").exists()


def test_the_batch_of_a_bad_loss_is_kept_and_names_its_clips(
    run: Path, data: PackedSkeletons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Learner.forward

    def broken(self: Learner, batch: Any, seed: Any = None) -> Any:
        loss = forward(self, batch, seed)
        return loss * float("nan") if keeper[0].fit.update == 5 else loss

    keeper: list[FitKeeper] = []
    opened = FitKeeper.opened

    def noted(self: FitKeeper, fit: Any) -> Any:
        keeper.append(self)
        return opened(self, fit)

    monkeypatch.setattr(FitKeeper, "opened", noted)
    monkeypatch.setattr(Learner, "forward", broken)
    out = tmp_path / "out"
    with pytest.raises(
        FloatingPointError,
        match=r"the loss became nan at update 6 .*checkpoint of update \d is kept; its clips",
    ):
        train_classifier(tuning(run, out, recipe={"mixup": 0.0}), data=data, quiet=True)
    batch = Batch.load(out / "diverged-6.safetensors")
    fit = keeper[0].fit
    names = {data.names[int(clip)] for clip in fit.order.batch(5)}
    assert {clip["name"] for clip in batch.about["clips"]} == names
    assert len(batch.clips) == len(batch.bodies)
    first = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert first["kind"] == "header"


def test_skipped_updates_are_counted_and_told(
    run: Path, data: PackedSkeletons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    calls = [0]
    forward = Learner.forward

    def broken(self: Learner, batch: Any, seed: Any = None) -> Any:
        calls[0] += (
            self.training and batch.clips.device.type == "cpu" and not isinstance(batch.clips, _fake())
        )
        return forward(self, batch, seed) * (float("nan") if calls[0] == 3 else 1.0)

    monkeypatch.setattr(Learner, "forward", broken)
    train_classifier(tuning(run, tmp_path / "out", on_nan="skip"), data=data)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    skipped = [line for line in lines if line["kind"] == "skipped"]
    assert [line["update"] for line in skipped] == [3]
    assert skipped[0]["clips"]
    assert "update 3 was skipped" in capsys.readouterr().err


def _fake() -> type:
    from torch._subclasses.fake_tensor import FakeTensor

    return FakeTensor
