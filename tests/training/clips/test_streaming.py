"""Frames of several files, streamed from where they lie."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import PackedSkeletons, concatenate
from fastamr.data.packed import file as packed_file
from fastamr.data.packed.mapped import Rows, mapped_files, parts_of
from fastamr.features.sampling import sample_bodies
from fastamr.training import PretrainConfig, pretrain, setup
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import PrefetchedClips, ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.setup import is_resident

from .test_clip_streams import CPU, assert_equal, drawn

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def files(tmp_path: Path, make_skeletons: Any, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files that are mapped however small, the first without a mask."""
    monkeypatch.setattr(packed_file, "COPIED", 0)
    found = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    make_skeletons(9, bodies=2, seed=1).save(found[0])
    make_skeletons(11, seed=2, with_valid=True).save(found[1])
    return found


def test_joined_files_are_one_set_without_a_copy(files: list[Path]) -> None:
    sets = [PackedSkeletons.load(file) for file in files]
    whole, joined = concatenate(sets), concatenate(sets, copy=False)
    assert joined.fingerprint() == whole.fingerprint()
    assert joined.coords.is_meta
    assert [part.data_ptr() for part in parts_of(joined.coords)] == [one.coords.data_ptr() for one in sets]
    assert [file.path for file in mapped_files(joined.coords)] == files
    assert joined.device == CPU
    with pytest.raises(RuntimeError, match="meta tensors"):
        joined.coords.sum().item()
    rows = Rows(joined.coords)
    for body in range(whole.num_bodies):
        start, end = whole.offsets[body : body + 2].tolist()
        rows.read_ahead(start, end - start)
        assert torch.equal(rows(start, end - start), whole.coords[start:end])


@pytest.mark.parametrize("batch", [6, 29, 64])
@pytest.mark.parametrize("half", [False, True])
def test_clips_from_joined_files_are_those_of_one_set_to_the_bit(
    files: list[Path], batch: int, half: bool
) -> None:
    sets = [PackedSkeletons.load(file) for file in files]
    if half:  # beside float32
        sets[0] = dataclasses.replace(sets[0], coords=sets[0].coords.half())
    whole, joined = concatenate(sets), concatenate(sets, copy=False)
    order = BatchOrder(torch.arange(whole.num_bodies), batch, seed=3)
    resident = ResidentClips(ClipSampler(whole, 16, min_frames=8), order)
    fetched = PrefetchedClips(ClipSampler(joined, 16, min_frames=8, resident=False), order, CPU)
    assert_equal(drawn(resident, range(12)), drawn(fetched, range(12)))
    # Back to what was made before, as a run does that explains a bad loss, and on from elsewhere.
    for updates in (range(10, 12), range(9, 14), range(2, 5), range(5, 7), range(4, 9)):
        assert_equal(drawn(resident, updates), drawn(fetched, updates))


@pytest.mark.parametrize("seed", [None, torch.tensor([3, 4])])
def test_bodies_of_joined_files_are_sampled_as_those_of_one_set(files: list[Path], seed: Any) -> None:
    sets = [PackedSkeletons.load(file) for file in files]
    options = {} if seed is None else {"crop": (0.5, 1.0), "seed": seed, "max_angle": 0.3}
    ids = torch.tensor([3, 28, 0, 17, 18, 3])
    whole = concatenate(sets)
    expected = sample_bodies(whole, ids, 16, **options)
    found = sample_bodies(concatenate(sets, copy=False), ids, 16, **options)
    assert_equal([expected], [found])
    # As with the mask of all bodies, which becomes numbers in every call.
    direct = setup.ClipSampler(whole, 16, min_frames=1)
    if seed is not None:
        assert_equal([direct(ids, seed)], [expected])


def test_a_run_on_joined_files_is_the_run_on_one_set(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    def run(name: str, **options: Any) -> list[dict[str, Any]]:
        config = PretrainConfig(
            model="tiny", architecture={"dropout": 0.0}, data=[str(file) for file in files], out=str(tmp_path / name),
            updates=6, batch_size=8, preprocess=[], min_frames=8, log_every=1, probe_every=2.0, device="cpu",
            progress=False, tensorboard=False, **options,
        )  # fmt: skip
        folder = pretrain(config, quiet=True)
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    def told(lines: list[dict[str, Any]]) -> list[Any]:
        return [line.get("loss", line.get("knn_1")) for line in lines if line["kind"] in ("train", "probe")]

    resident = run("resident")
    with monkeypatch.context() as patch:
        patch.setattr(setup, "free_memory", lambda device: 1000)
        fetched = run("fetched")
    assert [lines[0]["frames"] for lines in (resident, fetched)] == ["resident", "prefetched"]
    assert fetched[-1]["waited"] < fetched[-1]["seconds"]
    assert resident[0]["data"] == fetched[0]["data"]
    assert told(resident) == told(fetched)
    assert len(told(fetched)) > 6


def test_what_fits_into_memory_is_resident_on_a_cpu(
    files: list[Path], make_skeletons: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [PackedSkeletons.load(file) for file in files]
    needed = sum(one.coords.nbytes for one in sets) + 2 * sets[1].valid.numel()
    monkeypatch.setattr(setup, "free_memory", lambda device: 2 * needed)
    assert is_resident(sets, CPU, None)
    monkeypatch.setattr(setup, "free_memory", lambda device: 2 * needed - 1)
    assert not is_resident(sets, CPU, None)
    assert is_resident(sets[:1], CPU, None)
    monkeypatch.setattr(setup, "free_memory", lambda device: 0)
    assert not is_resident(sets[:1], CPU, None)
    assert is_resident([make_skeletons(9)], CPU, None)  # lies in memory already
    monkeypatch.setattr(setup, "free_memory", lambda device: None)
    assert is_resident(sets, CPU, None)


def test_steps_that_would_copy_more_than_the_memory_are_refused(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    monkeypatch.setattr(setup, "free_memory", lambda device: 1000)
    config = PretrainConfig(
        model="tiny",
        data=[str(file) for file in files],
        out=str(tmp_path / "run"),
        preprocess=["center", "scale"],
    )
    with pytest.raises(
        ValueError, match=r"preprocess: center, scale would copy 0\.0 GB of .*one\.safetensors and other"
    ):
        pretrain(config, quiet=True)
    assert not (tmp_path / "run").exists()
    setup.check_room([PackedSkeletons.load(file) for file in files], ["one", "two"], [])


def test_a_file_that_is_cut_short_ends_the_stream_with_its_name(files: list[Path]) -> None:
    sets = [PackedSkeletons.load(file) for file in files]
    joined = concatenate(sets, copy=False)
    order = BatchOrder(torch.arange(joined.num_bodies), 6, seed=3)
    fetched = PrefetchedClips(ClipSampler(joined, 16, min_frames=8, resident=False), order, CPU)
    drawn(fetched, range(2))
    os.truncate(files[1], 5000)
    with pytest.raises(OSError, match=r"two\.safetensors was cut from"):
        drawn(fetched, range(2, 8))


def test_streams_leave_no_thread_behind(files: list[Path]) -> None:
    joined = concatenate([PackedSkeletons.load(file) for file in files], copy=False)
    order = BatchOrder(torch.arange(joined.num_bodies), 6, seed=3)
    before = threading.active_count()
    for _ in range(5):
        stream = PrefetchedClips(ClipSampler(joined, 16, min_frames=8, resident=False), order, CPU)
        drawn(stream, range(3))
        del stream
    deadline = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells anonymous memory")
def test_memory_does_not_grow_with_what_is_read(tmp_path: Path) -> None:
    """400 MB in two files, with masks; docs/scaling.md has the figures of 28 GB."""
    words = ["--gigabytes", "0.4", "--files", "2", "--updates", "120", "--batch-size", "32", "--budget", "0"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "measure_streaming.py"), str(tmp_path / "large"), *words], text=True,
        capture_output=True, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["gigabytes_read"] > 0.35
    assert found["growth_megabytes"] < 20
    assert found["waiting_share"] < 0.5
    assert not list((tmp_path / "large").glob("*.safetensors"))
