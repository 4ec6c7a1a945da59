"""Runs that were broken off, what they keep, and how they go on."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastamr.training import PretrainConfig, pretrain
from fastamr.training.checkpoint import load_checkpoint
from fastamr.training.update.step import PretrainStep

from ..running import configure, losses, records, small

pytestmark = pytest.mark.usefixtures("tiny")


class _Stop(Exception):
    pass


def interrupt_after(monkeypatch: pytest.MonkeyPatch, updates: int, action: Any) -> None:
    """Let ``action`` happen once, before the update of that number."""
    call, count = PretrainStep.__call__, [0]

    def counted(self: Any) -> torch.Tensor:
        count[0] += 1
        if count[0] == updates:
            action()
        return call(self)

    monkeypatch.setattr(PretrainStep, "__call__", counted)


@pytest.mark.parametrize("with_valid", [False, True])
def test_resume_after_a_signal_continues_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_skeletons: Any, with_valid: bool
) -> None:
    data = make_skeletons(20, bodies=2, with_valid=with_valid)
    options = {"accumulate": 2, "clip_grad": 1.0, "checkpoint_every": 2.0}
    whole = pretrain(configure(tmp_path / "whole", **options), data=data)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(KeyboardInterrupt, match="update 6"):
            pretrain(configure(tmp_path / "parts", **options), data=data)
    assert len(losses(tmp_path / "parts")) == 6
    assert (tmp_path / "parts" / "model.safetensors").exists()
    torch.manual_seed(123)
    parts = pretrain(configure(tmp_path / "parts", resume=True, **options), data=data)
    assert losses(parts) == losses(whole)
    states = [load_file(folder / "state.safetensors") for folder in (whole, parts)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_resume_after_a_crash_starts_from_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    def crash() -> None:
        raise _Stop

    whole = pretrain(configure(tmp_path / "whole", checkpoint_every=2.0), data=skeletons)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7, crash)
        with pytest.raises(_Stop):
            pretrain(configure(tmp_path / "parts", checkpoint_every=2.0), data=skeletons)
    assert len(losses(tmp_path / "parts")) == 6  # updates 5 and 6 are newer than the checkpoint of update 4
    parts = pretrain(configure(tmp_path / "parts", checkpoint_every=2.0, resume=True), data=skeletons)
    assert losses(parts) == losses(whole)
    assert [line["update"] for line in records(parts, "header")] == [0, 4]


@pytest.mark.parametrize("model", ["amr", "skeleton_mae", "mamp", "gfp", "asma", "slim"])
def test_the_real_models_resume_to_the_bit_and_are_probed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_skeletons: Any, model: str
) -> None:
    data = make_skeletons(20, bodies=2, with_valid=True)
    options = {
        "model": model,
        "architecture": small(model),
        "updates": 8,
        "probe_every": 1.0,
        "probe_pooling": "mean+max",
    }
    whole = pretrain(configure(tmp_path / "whole", **options), data=data)
    assert len(records(whole, "probe")) == 2
    assert all(0 <= line["knn_1"] <= 100 for line in records(whole, "probe"))
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match="update 5"):
            pretrain(configure(tmp_path / "parts", **options), data=data)
    parts = pretrain(configure(tmp_path / "parts", resume=True, **options), data=data)
    assert losses(parts) == losses(whole)
    assert len(set(losses(whole))) == 8
    weights = [load_file(folder / "model.safetensors") for folder in (whole, parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resume_auto_starts_continues_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    whole = pretrain(configure(tmp_path / "whole"), data=skeletons)
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 6, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match=r"stopped after update 6; continue with --resume auto"):
            pretrain(configure(parts, resume="auto"), data=skeletons)
    assert PretrainConfig.load(parts / "config.yaml").resume is False
    pretrain(configure(parts, resume="auto"), data=skeletons)
    assert losses(parts) == losses(whole)
    states = [load_file(folder / "state.safetensors") for folder in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    with pytest.raises(ValueError, match=r"architecture\.width was 4 and is now 5"):
        pretrain(configure(parts, resume="auto", updates=20, architecture={"width": 5}), data=skeletons)


def test_resume_auto_starts_again_where_no_checkpoint_was_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    def crash() -> None:
        raise _Stop

    with monkeypatch.context() as patch:
        interrupt_after(patch, 3, crash)
        with pytest.raises(_Stop):
            pretrain(configure(tmp_path / "run"), data=skeletons)
    out = pretrain(configure(tmp_path / "run", resume="auto"), data=skeletons)
    assert [line["update"] for line in records(out, "train")] == list(range(1, 11))


def test_a_signal_leaves_the_probe_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match="update 4"):
            pretrain(configure(tmp_path / "run", probe_every=1.0), data=skeletons)
    assert [line["update"] for line in records(tmp_path / "run", "probe")] == [2]


def test_halves_of_files_are_removed(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    (out / ".state.safetensors.x1.part").write_text("half")
    (out / ".notes.part").write_text("mine")
    pretrain(configure(out, resume=True, updates=12), data=skeletons)
    assert sorted(path.name for path in out.glob(".*")) == [".notes.part"]


def test_resume_without_a_run_is_refused(tmp_path: Path, skeletons: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing to resume in .*run, .*omit --resume to start"):
        pretrain(configure(tmp_path / "run", resume=True), data=skeletons)
    assert not (tmp_path / "run").exists()


def test_resume_of_a_complete_run_does_nothing(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    before = (out / "metrics.jsonl").read_text()
    assert pretrain(configure(out, resume=True), data=skeletons) == out
    assert (out / "metrics.jsonl").read_text() == before


def test_a_longer_run_continues_and_says_so(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    pretrain(configure(out, resume=True, updates=14, progress=True), data=skeletons)
    assert len(losses(out)) == 14
    assert "updates was 10 and is now 14" in capsys.readouterr().err
    with pytest.raises(ValueError, match="at update 14 already, past the 12"):
        pretrain(configure(out, resume=True, updates=12), data=skeletons)


@pytest.mark.parametrize(
    ("options", "seed", "message"),
    [
        ({"architecture": {"width": 5}}, 0, "architecture.width was 4 and is now 5"),
        ({}, 1, "the data is not what the run was started on"),
    ],
)
def test_resume_of_another_run_is_refused(
    tmp_path: Path, make_skeletons: Any, options: dict[str, Any], seed: int, message: str
) -> None:
    out = pretrain(configure(tmp_path / "run"), data=make_skeletons())
    kept = (out / "state.safetensors").read_bytes()
    with pytest.raises(ValueError, match=message):
        pretrain(configure(out, resume=True, updates=20, **options), data=make_skeletons(seed=seed))
    assert (out / "state.safetensors").read_bytes() == kept


def test_a_folder_with_a_run_is_refused_or_overwritten(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    kept = (out / "state.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run"):
        pretrain(configure(out), data=skeletons)
    with pytest.raises(ValueError, match="must be shorter"):
        pretrain(configure(out, overwrite=True, warmup_epochs=50.0), data=skeletons)
    assert (out / "state.safetensors").read_bytes() == kept
    pretrain(configure(out, overwrite=True, updates=3), data=skeletons)
    assert len(losses(out)) == 3


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    forward = PretrainStep.__call__

    def poisoned(self: Any) -> torch.Tensor:
        loss = forward(self)
        if self.update == 7:
            self.metrics.values[6 % len(self.metrics.values), 0] = float("nan")
        return loss

    monkeypatch.setattr(PretrainStep, "__call__", poisoned)
    with pytest.raises(
        FloatingPointError, match=r"loss became nan at update 7 .*checkpoint of update 4 is kept"
    ):
        pretrain(configure(tmp_path / "run", log_every=5, checkpoint_every=2.0), data=skeletons)
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.scalars["update"] == 4
    assert all(torch.isfinite(tensor.double()).all() for tensor in checkpoint.tensors.values())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_stops_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    import fastamr.training.checkpoint as module

    save_file = module.save_file

    def save(tensors: Any, path: Path, metadata: Any) -> None:
        if json.loads(metadata["state"])["update"] > 4:
            Path("/dev/full").write_bytes(b"x" * 10_000)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(module, "save_file", save)
    with pytest.raises(OSError, match="No space left"):
        pretrain(configure(tmp_path / "run", checkpoint_every=2.0), data=skeletons)
    monkeypatch.undo()
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.scalars["update"] == 4
