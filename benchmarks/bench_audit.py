"""The audit on the CPU: near duplicates among 50,000 clips, exact ones, and the checks of quality."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.data.audit import check_quality, find_duplicates, near_pairs

from .conftest import Clock

CPU = torch.device("cpu")
CLIPS, COPIES = 50_000, 200


@pytest.fixture(scope="module")
def data() -> PackedSkeletons:
    """50,000 generated clips; the last 200 are the first ones with noise of 2 mm, another origin, 3 frames fewer."""
    made = synthetic_actions(CLIPS, seed=0)
    rest, first = made.select(range(CLIPS - COPIES)), made.select(range(COPIES))
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(0.002 * rng.standard_normal(tuple(first.coords.shape)) + 0.5).float()
    keep = torch.ones(first.num_frames, dtype=torch.bool)
    for frame in range(3):
        keep[first.offsets[:-1] + frame] = False
    lengths = first.offsets.diff() - 3
    coords = torch.where(first.coords.flatten(1).any(1)[:, None, None], first.coords + noise, 0)[keep]
    return dataclasses.replace(
        rest,
        coords=torch.cat([rest.coords, coords]),
        valid=None,
        offsets=torch.cat([rest.offsets, rest.num_frames + lengths.cumsum(0)]),
        body_clip=torch.cat([rest.body_clip, first.body_clip + rest.num_clips]),
        body_start=torch.cat([rest.body_start, first.body_start]),
        labels=torch.cat([rest.labels, first.labels]),
        fps=torch.cat([rest.fps, first.fps]),
        names=[f"clip{place}" for place in range(CLIPS)],
        columns={},
        splits={},
    )


def test_near_duplicates(benchmark: BenchmarkFixture, data: PackedSkeletons) -> None:
    found = near_pairs(data)
    copies = {tuple(pair) for pair in data.body_clip.numpy()[found.bodies].tolist()}
    hits = sum((clip, CLIPS - COPIES + clip) in copies for clip in range(COPIES))
    clock = Clock(benchmark, CPU)
    clock(lambda: near_pairs(data), "near duplicates", [CLIPS], rounds=1, warmup=0)
    benchmark.extra_info.update(planted=COPIES, found=hits, pairs=len(copies), compared=found.compared)
    assert hits >= 0.95 * COPIES


def test_exact_duplicates(benchmark: BenchmarkFixture, data: PackedSkeletons) -> None:
    assert (find_duplicates(data, near=False).group == np.arange(CLIPS)).all()
    Clock(benchmark, CPU)(
        lambda: find_duplicates(data, near=False), "exact duplicates", [CLIPS], rounds=1, warmup=0
    )


def test_quality(benchmark: BenchmarkFixture, data: PackedSkeletons) -> None:
    Clock(benchmark, CPU)(lambda: check_quality(data), "quality", [CLIPS], rounds=1, warmup=0)
