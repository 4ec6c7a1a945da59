"""The data path on the CPU: generating, opening and sampling a packed file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastamr import ops
from fastamr.data import PackedSkeletons, synthetic_actions

from .conftest import Clock

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed file of 2,048 generated clips."""
    path = tmp_path_factory.mktemp("data") / "synthetic.safetensors"
    synthetic_actions(2048, seed=0).save(path)
    return path


def test_generate(benchmark: BenchmarkFixture) -> None:
    first, again = synthetic_actions(64, seed=1), synthetic_actions(64, seed=1)
    assert torch.equal(first.coords, again.coords)
    clock = Clock(benchmark, CPU)
    median = clock(lambda: synthetic_actions(2048, seed=0), "synthetic_actions", [2048], rounds=5, warmup=1)
    benchmark.extra_info["clips_per_second"] = round(2048 / median)


def test_open(benchmark: BenchmarkFixture, packed_file: Path) -> None:
    data = PackedSkeletons.load(packed_file)
    assert data.num_clips == 2048
    clock = Clock(benchmark, CPU)
    clock(lambda: PackedSkeletons.load(packed_file), "open a packed file", data.coords.shape)
    benchmark.extra_info["megabytes"] = round(packed_file.stat().st_size / 1e6, 1)


def test_load_batches(benchmark: BenchmarkFixture, packed_file: Path) -> None:
    """Random batches of 256 sequences straight from the memory-mapped file."""
    data = PackedSkeletons.load(packed_file)
    order = torch.from_numpy(np.random.default_rng(0).permutation(data.num_bodies)[:256])
    seed = torch.tensor([1, 0])

    def run() -> torch.Tensor:
        return ops.sample_clips(data.coords, data.offsets, order, 120, seed, group=data.body_clip[order])

    assert torch.isfinite(run()).all()
    clock = Clock(benchmark, CPU)
    median = clock(run, "load a batch", [256, 120, 25, 3], "float32", "reference")
    benchmark.extra_info["sequences_per_second"] = round(256 / median)
