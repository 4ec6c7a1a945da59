"""The audit on the CPU: near duplicates among 10,000 or 50,000 clips, exact ones, and the checks of quality."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.data.audit import NearPairs, check_quality, find_duplicates, near_pairs

from .conftest import Clock

CPU = torch.device("cpu")
COPIES = 200


@pytest.fixture(scope="module", params=[10_000, pytest.param(50_000, marks=pytest.mark.long_case)])
def data(request: pytest.FixtureRequest) -> PackedSkeletons:
    """Generated clips; the last 200 are the first ones with noise of 2 mm, another origin, 3 frames fewer."""
    clips = request.param
    made = synthetic_actions(clips, seed=0)
    rest, first = made.select(range(clips - COPIES)), made.select(range(COPIES))
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
        names=[f"clip{place}" for place in range(clips)],
        columns={},
        splits={},
    )


def test_near_duplicates(benchmark: BenchmarkFixture, data: PackedSkeletons) -> None:
    results: list[NearPairs] = []
    clock = Clock(benchmark, CPU)
    clock(lambda: results.append(near_pairs(data)), "near duplicates", [data.num_clips], rounds=1, warmup=0)
    (found,) = results
    copies = {tuple(pair) for pair in data.body_clip.numpy()[found.bodies].tolist()}
    hits = sum((clip, data.num_clips - COPIES + clip) in copies for clip in range(COPIES))
    benchmark.extra_info.update(planted=COPIES, found=hits, pairs=len(copies), compared=found.compared)
    assert hits >= 0.95 * COPIES


def test_exact_duplicates(benchmark: BenchmarkFixture, data: PackedSkeletons) -> None:
    groups: list[np.ndarray] = []

    def run() -> None:
        groups.append(find_duplicates(data, near=False).group)

    Clock(benchmark, CPU)(run, "exact duplicates", [data.num_clips], rounds=1, warmup=0)
    assert (groups[0] == np.arange(data.num_clips)).all()


def test_quality(benchmark: BenchmarkFixture, data: PackedSkeletons) -> None:
    Clock(benchmark, CPU)(lambda: check_quality(data), "quality", [data.num_clips], rounds=1, warmup=0)
