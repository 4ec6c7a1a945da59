"""What a run leaves when it is killed, the disk is full, its numbers are not finite, or another one is there."""

from __future__ import annotations

import builtins
import errno
import json
import math
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fastamr.training.checkpoint as checkpoint_file
from fastamr.folders import FolderLock, written
from fastamr.models import load_pretrained
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.checkpoint import load_checkpoint
from fastamr.training.diverged import Batch
from fastamr.training.report import MOST_SKIPPED
from fastamr.training.update.step import PretrainStep

SMALL = {"frames": 16, "width": 8, "depth": 1, "heads": 2}
SMALL |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


def configure(out: Path, **options: Any) -> PretrainConfig:
    defaults = {
        "model": "skeleton_mae",
        "architecture": SMALL,
        "out": str(out),
        "preprocess": [],
        "batch_size": 8,
        "min_frames": 8,
        "updates": 4,
        "log_every": 1,
        "checkpoint_every": 1.0,  # two updates
        "warmup_epochs": 0.0,
        "tensorboard": False,
        "progress": False,
        "device": "cpu",
    }
    return PretrainConfig(**{**defaults, **options})


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def same(one: Path, two: Path) -> bool:
    left, right = load_file(one), load_file(two)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# ---- kills and full disks


class _Points:
    """Counts what a process does to files, and fails at the n-th time."""

    def __init__(self, patch: pytest.MonkeyPatch, fail: Callable[[], None]) -> None:
        self.count, self.at, self.fail = 0, -1, fail
        for owner, name in (
            (os, "replace"), (os, "fsync"), (os, "link"), (os, "write"), (os, "unlink"), (tempfile, "mkstemp"),
            (Path, "replace"), (Path, "unlink"), (Path, "write_text"), (checkpoint_file, "save_file"),
            (builtins, "open"),
        ):  # fmt: skip
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                self.fail()
            return function(*arguments, **options)

        return call


def kill() -> None:
    os._exit(9)


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def run_and_fail(config: PretrainConfig, data: Any, fail: Callable[[], None], at: int) -> int:
    """Carry a run out in a process that fails at a point; return its status, and the points there are with ``at`` 0."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        code = 0
        with pytest.MonkeyPatch.context() as patch:
            points = _Points(patch, fail)
            points.at = at
            try:
                pretrain(config, data=data, quiet=True)
            except OSError as error:
                code = 1 if "cannot write" in str(error) else 3
            except BaseException:
                code = 4
            count = points.count
        os.write(writer, str(count).encode())
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return int(text) if at == 0 else status


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("fail", [kill, no_space])
def test_whatever_point_a_run_ends_at_resume_completes_it(
    tmp_path: Path, skeletons: Any, fail: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = pretrain(configure(tmp_path / "whole"), data=skeletons, quiet=True)
    points = run_and_fail(configure(tmp_path / "count"), skeletons, fail, 0)
    assert points > 30
    for point in range(1, points + 1):
        folder = tmp_path / str(point)
        status = run_and_fail(configure(folder), skeletons, fail, point)
        # A write of no account may fail without ending the run: a lock's words, the removal of a file.
        assert status in ((9,) if fail is kill else (0, 1)), (point, status)
        out = pretrain(configure(folder, resume="auto"), data=skeletons, quiet=True)
        assert same(out / "model.safetensors", whole / "model.safetensors"), point
        assert same(out / "state.safetensors", whole / "state.safetensors"), point
        assert len(records(out, "summary")) == 1, point
        assert [line["update"] for line in records(out, "train")] == [1, 2, 3, 4], point
        assert json.loads((out / "complete.json").read_text())["updates"] == 4, point
        names = {path.name for path in out.iterdir()}
        assert names == {path.name for path in whole.iterdir()}, point
        assert load_pretrained(out) is not None
    capsys.readouterr()


def test_a_run_that_was_cut_short_after_its_state_gets_model_and_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    import fastamr.models.base as module

    whole = pretrain(configure(tmp_path / "whole"), data=skeletons)

    def full(*_: Any, **__: Any) -> None:
        no_space()

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", full)
        with pytest.raises(OSError, match=r"No space left.*make room, then --resume"):
            pretrain(configure(tmp_path / "run", checkpoint_every=9.0), data=skeletons)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    out = pretrain(configure(tmp_path / "run", resume=True, checkpoint_every=9.0), data=skeletons)
    assert "cut short: model and summary are written now" in capsys.readouterr().err
    assert same(out / "model.safetensors", whole / "model.safetensors")
    (summary,) = records(out, "summary")
    assert summary["loss"] == records(whole, "summary")[0]["loss"]
    assert pretrain(configure(out, resume=True, checkpoint_every=9.0), data=skeletons) == out
    assert "is complete: 4 updates" in capsys.readouterr().err


def test_a_full_disk_before_anything_was_saved_does_not_say_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    def full(*_: Any, **__: Any) -> None:
        no_space()

    monkeypatch.setattr(checkpoint_file, "save_file", full)
    with pytest.raises(OSError, match=r"nothing was saved yet: make room, then start the run again"):
        pretrain(configure(tmp_path / "run"), data=skeletons)


def test_a_folder_that_vanishes_ends_the_run_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    import shutil

    forward = PretrainStep.__call__

    def vanish(self: Any) -> torch.Tensor:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return forward(self)

    monkeypatch.setattr(PretrainStep, "__call__", vanish)
    with pytest.raises(OSError, match=r"the folder is gone, and the run with it"):
        pretrain(configure(tmp_path / "run"), data=skeletons)


# ---- other people's files, other runs


def test_what_was_in_the_folder_before_stays(tmp_path: Path, skeletons: Any) -> None:
    mine = ["features/extracted.npy", "tensorboard/events.of.another.run", "evaluation_notes.json"]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    for overwrite in (False, True):
        pretrain(configure(tmp_path, overwrite=overwrite), data=skeletons)
        assert [(tmp_path / name).read_text() for name in mine] == ["precious"] * 3


def test_overwrite_removes_what_the_manifest_names(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    out = pretrain(configure(tmp_path / "run", tensorboard=True, profile=1), data=skeletons)
    (events,) = (out / "tensorboard").iterdir()
    assert {"state.safetensors", "profile.json", f"tensorboard/{events.name}"} <= set(written(out))
    (out / "notes.txt").write_text("mine")
    (out / "evaluation-mine.json").write_text("mine")
    pretrain(configure(out, overwrite=True), data=skeletons)
    left = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert left - set(written(out)) == {"notes.txt", "evaluation-mine.json", "manifest.jsonl"}
    assert not (out / "tensorboard").exists()
    assert not (out / "profile.json").exists()
    assert "note: evaluation-mine.json in" in capsys.readouterr().err


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path, skeletons: Any) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    before = (out / "state.safetensors").read_bytes()
    with FolderLock(out, "fastamr pretrain"):
        for options in ({"overwrite": True}, {"resume": True, "updates": 8}):
            with pytest.raises(BlockingIOError, match="in use by fastamr pretrain"):
                pretrain(configure(out, **options), data=skeletons)
    assert (out / "state.safetensors").read_bytes() == before


def test_a_complete_run_of_other_settings_says_so(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    before = (out / "state.safetensors").read_bytes()
    capsys.readouterr()
    pretrain(configure(out, resume=True), data=skeletons)
    assert "otherwise" not in capsys.readouterr().err
    pretrain(configure(out, resume=True, weight_decay=0.25), data=skeletons)
    shown = " ".join(capsys.readouterr().err.split())
    assert "was trained otherwise: weight_decay was 0.05 and is now 0.25" in shown
    assert "is complete: 4 updates" in shown
    assert (out / "state.safetensors").read_bytes() == before


def test_data_that_lies_where_the_run_writes_is_refused(tmp_path: Path, skeletons: Any) -> None:
    path = tmp_path / "model.safetensors"
    skeletons.save(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="one of the files that are read"):
        pretrain(configure(tmp_path, overwrite=True, data=[str(path)]))
    assert path.read_bytes() == before


# ---- numbers that are not finite


@pytest.mark.parametrize("lr", [3e38, 1e20, 1e12])
def test_a_diverged_run_never_replaces_its_good_checkpoint(tmp_path: Path, skeletons: Any, lr: float) -> None:
    out = pretrain(configure(tmp_path / "run", updates=2), data=skeletons)
    good = (out / "state.safetensors").read_bytes()
    with pytest.raises(FloatingPointError, match=r"checkpoint of update 2 is kept; its clips, .*lower --lr"):
        pretrain(
            configure(out, resume=True, updates=9, lr=lr, min_lr=lr, checkpoint_every=0.1), data=skeletons
        )
    assert (out / "state.safetensors").read_bytes() == good
    pretrain(configure(out, resume=True, updates=4, lr=1e-4, min_lr=0.0), data=skeletons)
    assert all(value.double().isfinite().all() for value in load_file(out / "state.safetensors").values())


def test_a_checkpoint_that_gave_a_bad_loss_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    """Its values were finite, the loss that they gave was not: the one before is the last that is of use."""
    poison(monkeypatch, {3})
    out = tmp_path / "run"
    with pytest.raises(
        FloatingPointError, match=r"that of update 2 led there, and lies in state.suspect.*update 1 is"
    ):
        pretrain(configure(out, checkpoint_every=0.1), data=skeletons)
    loaded = load_checkpoint(out)
    assert loaded is not None
    assert loaded.scalars["update"] == 1
    model, state = load_file(out / "model.safetensors"), loaded.tensors
    assert all(torch.equal(value, state[f"model.{name}"]) for name, value in model.items())
    monkeypatch.undo()
    done = pretrain(configure(out, resume=True), data=skeletons)
    assert not list(done.glob("state.*.*.safetensors"))
    assert not (done / "state.suspect.safetensors").exists()


def poison(patch: pytest.MonkeyPatch, updates: set[int]) -> None:
    """Make the losses of some updates NaN, and with them all gradients."""
    backward = PretrainStep._backward

    def poisoned(self: Any, forward: Any) -> Any:
        def bad() -> Any:
            output = forward()
            loss = output if isinstance(output, torch.Tensor) else output.loss
            return loss * torch.nan if int(self.counter) + 1 in updates else loss

        return backward(self, bad)

    patch.setattr(PretrainStep, "_backward", poisoned)


def test_the_batch_of_a_bad_loss_is_kept_and_names_its_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    poison(monkeypatch, {3})
    out = tmp_path / "run"
    with pytest.raises(FloatingPointError) as told:
        pretrain(configure(out, log_every=4, checkpoint_every=9.0), data=skeletons)
    batch = Batch.load(out / "diverged-3.safetensors")
    assert f"the batch is in {out / 'diverged-3.safetensors'} and .yaml" in str(told.value)
    assert batch.clips.shape == (8, 16, 25, 3)
    assert (batch.about["update"], len(batch.bodies)) == (3, 8)
    names = {skeletons.names[clip] for clip in skeletons.body_clip[batch.bodies].tolist()}
    assert {clip["name"] for clip in batch.about["clips"]} == names
    largest = [clip["largest"] for clip in batch.about["clips"]]
    assert largest == sorted(largest, reverse=True)
    assert batch.about["clips"][0]["name"] in str(told.value)
    assert {"diverged-3.safetensors", "diverged-3.yaml"} <= set(written(out))


def test_the_kept_batch_is_the_one_that_the_model_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    seen: list[torch.Tensor] = []
    forwards = PretrainStep._forwards

    def watch(self: Any, model: Any, inputs: Any) -> Any:
        if self.clips is not None and int(self.counter) == 2 and model is self.model and not seen:
            seen.extend(each.clone() for each in self.clips.draw(self.counter, self.seed)[:1])
            seen.append(self.seed.clone())
        return forwards(self, model, inputs)

    monkeypatch.setattr(PretrainStep, "_forwards", watch)
    poison(monkeypatch, {3})
    for budget in (None, 0.0):  # on the device, and fetched ahead
        seen.clear()
        out = tmp_path / f"run-{budget}"
        with pytest.raises(FloatingPointError):
            pretrain(
                configure(out, log_every=4, checkpoint_every=9.0, accumulate=2, data_budget=budget),
                data=skeletons,
            )
        batch = Batch.load(out / "diverged-3.safetensors")
        assert torch.equal(batch.clips, seen[0])
        assert torch.equal(batch.seed, seen[1])


@pytest.mark.parametrize(
    "change",
    [lambda path: path.write_bytes(b"\x80\x04junk"), lambda path: path.write_bytes(path.read_bytes()[:100])],
)
def test_a_damaged_batch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any, change: Any
) -> None:
    poison(monkeypatch, {1})
    with pytest.raises(FloatingPointError, match="nothing was saved yet"):
        pretrain(configure(tmp_path / "run"), data=skeletons)
    path = tmp_path / "run" / "diverged-1.safetensors"
    change(path)
    with pytest.raises(ValueError, match="is no batch of a run"):
        Batch.load(path)
    path.with_suffix(".yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match=r"diverged-1\.yaml. is no YAML"):
        Batch.load(path)


def test_a_skipped_update_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    poison(monkeypatch, {3})
    after = pretrain(configure(tmp_path / "run", updates=2, on_nan="skip"), data=skeletons)
    left = load_file(after / "state.safetensors")
    pretrain(configure(after, updates=3, on_nan="skip", resume=True), data=skeletons)
    right = load_file(after / "state.safetensors")
    moved = {name for name in left if not torch.equal(left[name], right[name])}
    assert moved <= {"seed", "rng.cpu"}
    assert [line["update"] for line in records(after, "train")] == [1, 2]
    (skipped,) = records(after, "skipped")
    assert (skipped["update"], len(skipped["clips"])) == (3, 8)
    assert records(after, "summary")[0]["skipped"] == 1
    assert "warning: update 3 was skipped" in capsys.readouterr().err
    longer = pretrain(configure(after, updates=5, resume=True, on_nan="skip"), data=skeletons)
    assert records(longer, "summary")[0]["skipped"] == 1
    assert all(math.isfinite(line["loss"]) for line in records(longer, "train"))


def test_skip_changes_nothing_where_all_is_finite(tmp_path: Path, skeletons: Any) -> None:
    runs = [
        pretrain(configure(tmp_path / on_nan, on_nan=on_nan), data=skeletons) for on_nan in ("stop", "skip")
    ]
    assert same(runs[0] / "state.safetensors", runs[1] / "state.safetensors")


def test_a_run_that_skips_all_it_does_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any
) -> None:
    poison(monkeypatch, set(range(3, 100)))
    with pytest.raises(FloatingPointError, match=f"{MOST_SKIPPED} updates in a row were skipped"):
        pretrain(configure(tmp_path / "run", updates=60, on_nan="skip"), data=skeletons)


def test_data_of_zeros_is_refused(tmp_path: Path, skeletons: Any) -> None:
    skeletons.coords.zero_()
    with pytest.raises(ValueError, match=r"all coordinates of the 16 body sequences to train on are 0"):
        pretrain(configure(tmp_path / "run"), data=skeletons)
    assert not (tmp_path / "run").exists()


# ---- resuming


def test_what_resuming_changes_is_said_and_recorded_without_a_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    path = out / "state.safetensors"
    loaded = load_checkpoint(out)
    assert loaded is not None
    machine = loaded.scalars["machine"]
    machine |= {"threads": 64, "precision": "bfloat16", "device": "cuda (Some GPU)"}
    name = next(iter(machine["backends"]))
    machine["backends"][name] = "elsewhere"
    path.unlink()
    checkpoint_file.save_checkpoint(out, loaded.tensors, loaded.scalars)
    capsys.readouterr()
    pretrain(configure(out, resume=True, updates=6, lr=2e-3), data=skeletons)
    shown = capsys.readouterr().err
    found = [line["message"] for line in records(out, "warning")]
    for text in (
        "lr was 0.001 and is now 0.002",
        f"threads was 64 and is now {torch.get_num_threads()}",
        "precision was bfloat16 and is now float32",
        "device was cuda (Some GPU) and is now cpu",
        f"the back end of {name} was elsewhere and is now",
    ):
        assert text in shown
        assert any(text in message for message in found)


def test_rubbish_in_the_metrics_is_named_and_does_not_stop_a_resume(
    tmp_path: Path, skeletons: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pretrain(configure(tmp_path / "run"), data=skeletons)
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join([lines[0], b"\xff\xfe\n", b"[1]\n", b'{"update": "x"}\n', *lines[1:], b'{"kind": "tr'])
    )
    pretrain(configure(out, resume=True, updates=6), data=skeletons)
    shown = capsys.readouterr().err
    for number in (2, 3, 4):
        assert f"{path}, line {number} is no record of a run" in shown
    assert [line["update"] for line in records(out, "train")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)])
def test_a_queues_signal_saves_and_resume_auto_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skeletons: Any, number: int
) -> None:
    whole = pretrain(configure(tmp_path / "whole"), data=skeletons)
    forward = PretrainStep.__call__

    def notice(self: Any) -> torch.Tensor:
        if self.update == 2:
            os.kill(os.getpid(), number)
        return forward(self)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainStep, "__call__", notice)
        with pytest.raises(KeyboardInterrupt, match="stopped after update 3; continue with --resume auto"):
            pretrain(configure(tmp_path / "run", resume="auto"), data=skeletons)
    assert not (tmp_path / "run" / "complete.json").exists()
    out = pretrain(configure(tmp_path / "run", resume="auto"), data=skeletons)
    assert same(out / "state.safetensors", whole / "state.safetensors")
