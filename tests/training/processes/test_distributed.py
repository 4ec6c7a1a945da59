"""Several processes make the run that one process makes: the same clips, masks and losses, and one folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastamr import ops
from fastamr.cli import main
from fastamr.distributed import World, processes, share_of, spread_over, total
from fastamr.models import build_model
from fastamr.ops.weighted_reconstruction_loss import counted_values
from fastamr.reference.weighted_reconstruction_loss import loss_weights, reconstruction_target
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.clips.batches import BatchOrder, Part
from fastamr.training.clips.clip_streams import PrefetchedClips, ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.setup import check_spreads

from ...models.body.sets import pack, saved

ROOT = Path(__file__).resolve().parents[3]
SMALL = {"frames": 16, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1}
SMALL |= {"decoder_heads": 2}
# A learning rate that does not depend on the run's length.
RUN = {"min_frames": 8, "batch_size": 8, "log_every": 1, "lr": 1e-3, "min_lr": 1e-3, "warmup_epochs": 0.0}
RUN |= {"device": "cpu", "progress": False, "tensorboard": False}


def configure(folder: Path, name: str, **options: Any) -> PretrainConfig:
    architecture = {**SMALL, **options.pop("architecture", {"target_patches": 1})}
    values = {**RUN, "data": [str(folder / "data.safetensors")], "out": str(folder / name), **options}
    return PretrainConfig(architecture=architecture, **values)


def launch(folder: Path, count: int, config: PretrainConfig) -> subprocess.Popen[str]:
    config.save(folder / "asked.yaml")
    words = [
        "--nproc-per-node",
        str(count),
        "-m",
        "fastamr",
        "pretrain",
        "--config",
        str(folder / "asked.yaml"),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words], cwd=ROOT, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run(folder: Path, count: int, config: PretrainConfig) -> str:
    process = launch(folder, count, config)
    _, shown = process.communicate(timeout=300)
    assert process.returncode == 0, shown
    return shown


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize(("count", "pieces"), [(1, 1), (2, 1), (4, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("sequences", [5, 40])
def test_the_parts_of_a_batch_are_the_batch(count: int, pieces: int, sequences: int) -> None:
    whole = BatchOrder(torch.arange(sequences), 24, seed=3)
    parts = [BatchOrder(torch.arange(sequences), 24, 3, Part(rank, count, pieces)) for rank in range(count)]
    for update in range(5):
        shares = torch.stack([part.batch(update).view(pieces, -1) for part in parts], dim=1)
        assert torch.equal(shares.flatten(), whole.batch(update))
    assert [part.first for part in parts] == [rank * 24 // (count * pieces) for rank in range(count)]
    assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
    with pytest.raises(ValueError, match="24 cannot be cut into 5 even shares"):
        BatchOrder(torch.arange(9), 24, 3, Part(0, 5))


@pytest.mark.parametrize("stream", [ResidentClips, PrefetchedClips])
def test_each_process_draws_its_clips_of_the_whole_batch(
    make_skeletons: Callable[..., Any], stream: Any
) -> None:
    data = make_skeletons(9, bodies=2, with_valid=True)
    seed = torch.tensor([7, 5])

    def draw(part: Part) -> tuple[torch.Tensor, ...]:
        sampler = ClipSampler(data, 16, min_frames=8)
        order = BatchOrder(torch.arange(18), 12, 1, part)
        clips = (
            ResidentClips(sampler, order)
            if stream is ResidentClips
            else PrefetchedClips(sampler, order, torch.device("cpu"))
        )
        clips.advance(2)
        return clips.draw(torch.tensor(2), seed)

    whole = draw(Part())
    for place, tensor in enumerate(whole):
        parts = [draw(Part(rank, 3, 2))[place].unflatten(0, (2, 2)) for rank in range(3)]
        assert torch.equal(torch.stack(parts, dim=1).flatten(0, 2), tensor)


def test_masks_follow_the_number_of_the_sequence() -> None:
    seed = torch.tensor([11, 4])
    whole = ops.select_visible(seed, 9, 50, 7)
    for number in (1, 2):
        derived = ops.derive_seed(torch.tensor([11, 4, 3]), number)
        assert derived.tolist() == [*ops.derive_seed(seed, number).tolist(), 3]
    assert torch.equal(ops.select_visible(torch.tensor([11, 4, 3]), 4, 50, 7), whole[3:7])
    assert torch.equal(ops.select_visible(torch.tensor([11, 4, 0]), 9, 50, 7), whole)
    with pytest.raises(ValueError, match="key, counter"):
        ops.select_visible(torch.tensor([11, 4, 3, 0]), 4, 50, 7)


@pytest.mark.parametrize("target", ["motion", "joints"])
def test_the_count_is_that_of_the_loss(target: str) -> None:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(3, 8, 4, 3, generator=generator)
    valid = torch.rand(3, 8, 4, generator=generator) > 0.3
    mask = torch.rand(3, 8, generator=generator) > 0.5
    sizes = {"target_frames": 4, "target_joints": 1}
    patches, known = reconstruction_target(clips, valid=valid, target=target, stride=2, **sizes)
    weights, number = loss_weights(patches, known, None, mask, **sizes)
    assert weights is not None
    count = counted_values(valid, token_mask=mask, target=target, stride=2, **sizes).sum()
    assert int(count) * clips.shape[-1] == int((weights > 0).sum()) == int(number)


def test_one_process_speaks_to_nobody() -> None:
    world, values = World(), torch.ones(3)
    with world.joined(torch.device("cpu")), spread_over(1):
        assert processes() == 1
        assert total(values) is values
        assert share_of(torch.tensor(5)) == 1
    assert (world.any(True), world.any(False), world.first) == (True, False, True)
    world.agree({"nothing": 1})
    world.check_batch(7, 7)


def test_what_torchrun_says_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert World.from_environment() == World()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert World.from_environment() == World()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(
        ValueError, match=r"WORLD_SIZE=4, but RANK, MASTER_ADDR, MASTER_PORT is not set.*torchrun"
    ):
        World.from_environment()
    for name, value in {"RANK": "3", "MASTER_ADDR": "host", "MASTER_PORT": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert World.from_environment() == World(3, 4, 1)
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(ValueError, match="RANK='x' must be a whole number"):
        World.from_environment()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"batch_size 250 .*4 processes cannot share.*--batch-size 248 or 252"
    ):
        World(0, 4).check_batch(250, 1)
    with pytest.raises(ValueError, match=r"3 micro-batches.*--batch-size 6$"):
        World(0, 2).check_batch(4, 3)
    World(0, 4).check_batch(256, 2)


def test_a_model_of_batch_statistics_is_refused() -> None:
    model = build_model("asma", frames=8, width=8, depth=1, heads=2, projector=8)
    check_spreads(model, 1)
    with pytest.raises(ValueError, match="model 'asma' compares the sequences of a batch"):
        check_spreads(model, 2)


@pytest.mark.parametrize("command", ["table", "prepare"])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_other_commands_run_in_one_process(
    command: str, rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": rank, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert main([command, "--out", "x"]) == 2
    said = f"error: {command} runs in one process, and torchrun started 2"
    assert capsys.readouterr().err.startswith(said if rank == "0" else "")


def test_two_processes_make_the_same_run_and_one_goes_on(tmp_path: Path, make_skeletons: Any) -> None:
    make_skeletons(12, bodies=2, with_valid=True).save(tmp_path / "data.safetensors")
    shown = run(tmp_path, 2, configure(tmp_path, "two", updates=3, accumulate=2))
    assert "batch    8 sequences over all processes: 2 x 4" in shown
    assert (
        len(re.findall("^model ", shown, re.MULTILINE))
        == len(re.findall("^done: ", shown, re.MULTILINE))
        == 1
    )
    pretrain(configure(tmp_path, "one", updates=6, accumulate=2), quiet=True)
    whole = losses(tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(whole[:3], rel=1e-5)
    assert load_file(tmp_path / "two" / "state.safetensors")["seed"].shape == (2,)
    names = ["config.json", "config.yaml", "metrics.jsonl", "model.safetensors", "state.safetensors"]
    assert sorted(path.name for path in (tmp_path / "two").iterdir() if path.name in names) == names
    pretrain(configure(tmp_path, "two", updates=6, accumulate=2, resume=True), quiet=True)
    assert losses(tmp_path / "two") == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["amr", "skeleton_mae"])
def test_two_processes_share_sets_of_different_layouts(tmp_path: Path, model: str) -> None:
    sources = saved(tmp_path, pack("ntu25", clips=12), pack("kinect20", 1, clips=12))
    own = {"target_patches": 1} if model == "amr" else {}
    asked: dict[str, Any] = {"data": sources, "model": model, "updates": 3}
    for name in ("two", "one"):
        config = configure(tmp_path, name, **asked, architecture={"layout": "body", **own})
        if name == "two":
            run(tmp_path, 2, config)
        else:
            pretrain(config, quiet=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "architecture"), [("amr", {"target_patches": 1}), ("gfp", {"levels": [1, 2]}), ("mamp", {})]
)
def test_four_processes_make_the_same_run(
    tmp_path: Path, make_skeletons: Any, model: str, architecture: dict[str, Any]
) -> None:
    make_skeletons(12, bodies=2, with_valid=True).save(tmp_path / "data.safetensors")
    options = {"model": model, "architecture": architecture, "updates": 3}
    run(tmp_path, 4, configure(tmp_path, "four", **options))
    pretrain(configure(tmp_path, "one", **options), quiet=True)
    assert losses(tmp_path / "four") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    pretrain(configure(tmp_path, "one", **options | {"updates": 5, "resume": True}), quiet=True)
    run(tmp_path, 2, configure(tmp_path, "four", **options | {"updates": 5, "resume": "auto"}))
    assert losses(tmp_path / "four") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def find_process(folder: Path, rank: int) -> int:
    """The process of a rank that trains into the folder, once it has trained."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes()
                variables = (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            mine = str(folder).encode() in words and f"RANK={rank}".encode() in variables
            if mine and (folder / "run" / "metrics.jsonl").exists() and losses(folder / "run"):
                return int(path.name)
        time.sleep(0.1)
    raise AssertionError(f"no process {rank}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_any_process_saves_and_ends_all(
    tmp_path: Path, make_skeletons: Any, rank: int, number: signal.Signals
) -> None:
    make_skeletons(12).save(tmp_path / "data.safetensors")
    process = launch(tmp_path, 2, configure(tmp_path, "run", updates=100_000, checkpoint_every=1e9))
    os.kill(find_process(tmp_path, rank), number)
    _, shown = process.communicate(timeout=60)
    made = len(losses(tmp_path / "run"))
    assert f"interrupted: stopped after update {made}; continue with --resume auto" in shown
    assert len(re.findall("^interrupted", shown, re.MULTILINE)) == 1
    assert (tmp_path / "run" / "state.safetensors").exists()
    pretrain(configure(tmp_path, "run", updates=made + 1, resume=True), quiet=True)
    assert len(losses(tmp_path / "run")) == made + 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_job(tmp_path: Path, make_skeletons: Any, rank: int) -> None:
    make_skeletons(12).save(tmp_path / "data.safetensors")
    process = launch(tmp_path, 2, configure(tmp_path, "run", updates=100_000))
    os.kill(find_process(tmp_path, rank), signal.SIGKILL)
    _, shown = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "SIGKILL" in shown or "another process of the job has ended" in shown


@pytest.mark.slow
def test_an_error_of_the_first_process_is_told_once(tmp_path: Path, make_skeletons: Any) -> None:
    make_skeletons(12).save(tmp_path / "data.safetensors")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_text("another run")
    process = launch(tmp_path, 2, configure(tmp_path, "run", updates=3))
    _, shown = process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(re.findall("^error: out .* already holds a run", shown, re.MULTILINE)) == 1
    assert (tmp_path / "run" / "model.safetensors").read_text() == "another run"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_record_the_collective_with_the_update(tmp_path: Path, make_skeletons: Any) -> None:
    """The recorded updates of two GPUs, NCCL inside the graph, against those of one."""
    make_skeletons(12, bodies=2, with_valid=True).save(tmp_path / "data.safetensors")
    options = {"updates": 12, "device": "cuda", "graph": "on", "precision": "float32"}
    run(tmp_path, 2, configure(tmp_path, "two", **options))
    pretrain(configure(tmp_path, "one", **options), quiet=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
