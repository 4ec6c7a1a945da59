from __future__ import annotations

import pytest
import torch

from fastamr import ops
from fastamr.models.masking import STRATEGIES, choose_visible, product_of, token_validity


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("times", "joints"), [(30, 25), (4, 3), (1, 7), (7, 1)])
def test_exactly_k_distinct_ascending(strategy: str, times: int, joints: int) -> None:
    for visible in {1, 2, times, joints, times * joints // 2 + 1, times * joints - 1, times * joints}:
        if not 1 <= visible <= times * joints:
            continue
        keep = choose_visible(ops.make_seed(), 3, times, joints, visible, strategy=strategy)
        assert keep.shape == (3, visible)
        assert keep.dtype == torch.int32
        assert (keep.diff(dim=1) > 0).all()
        assert keep.min() >= 0
        assert keep.max() < times * joints


def test_frame_masking_keeps_whole_time_patches() -> None:
    keep = choose_visible(ops.make_seed(), 50, 30, 25, 75, strategy="frame")
    times = keep // 25
    assert all(len(row.unique()) == 3 for row in times), "75 = 3 whole time patches of 25 joints"
    assert len(times.unique()) == 30, "all time patches come up"
    partial = choose_visible(ops.make_seed(), 50, 30, 25, 80, strategy="frame")
    for row in partial:
        counts = torch.bincount(row // 25, minlength=30)
        assert sorted(counts[counts > 0].tolist()) == [5, 25, 25, 25]


def test_joint_masking_keeps_whole_joints() -> None:
    keep = choose_visible(ops.make_seed(), 50, 30, 25, 75, strategy="joint")
    for row in keep:
        counts = torch.bincount(row % 25, minlength=25)
        assert sorted(counts[counts > 0].tolist()) == [15, 30, 30], "two whole joints and half of a third"
    assert len((keep % 25).unique()) == 25


def test_frame_and_joint_masking_keeps_a_product() -> None:
    keep = choose_visible(ops.make_seed(), 50, 30, 25, 75, strategy="frame+joint")
    for row in keep:
        assert len((row // 25).unique()) == 15
        assert len((row % 25).unique()) == 5
    more = choose_visible(ops.make_seed(), 50, 30, 25, 74, strategy="frame+joint")
    assert (more.diff(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("visible", "grid", "expected"),
    [
        (75, (30, 25), (15, 5)),
        (74, (30, 25), (9, 8)),
        (7, (30, 25), (7, 1)),
        (750, (30, 25), (30, 25)),
        (4, (2, 9), (2, 2)),
    ],
)
def test_closest_product(visible: int, grid: tuple[int, int], expected: tuple[int, int]) -> None:
    assert product_of(visible, *grid) == expected


def test_strategies_follow_the_seed() -> None:
    for strategy in STRATEGIES:
        draw = [
            choose_visible(torch.tensor([s, c]), 2, 30, 25, 75, strategy=strategy)
            for s, c in ((1, 0), (1, 0), (1, 1), (2, 0))
        ]
        assert torch.equal(draw[0], draw[1])
        assert not torch.equal(draw[0], draw[2])
        assert not torch.equal(draw[0], draw[3])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_missing_joints_are_avoided(strategy: str) -> None:
    """Three of 25 joints are missing; with 1 in 10 tokens visible no strategy has to show them."""
    valid = torch.ones(20, 30, 25, dtype=torch.bool)
    valid[:, :, [3, 10, 24]] = False
    keep = choose_visible(
        ops.make_seed(),
        20,
        30,
        25,
        60 if strategy == "joint" else 75,
        strategy=strategy,
        valid=valid.flatten(1),
    )
    missing = torch.isin(keep % 25, torch.tensor([3, 10, 24]))
    if strategy in ("random", "joint"):
        assert not missing.any()
    assert (keep.diff(dim=1) > 0).all()


def test_all_missing_still_gives_k_distinct() -> None:
    valid = torch.zeros(2, 12, dtype=torch.bool)
    for strategy in STRATEGIES:
        keep = choose_visible(ops.make_seed(), 2, 4, 3, 5, strategy=strategy, valid=valid)
        assert keep.shape == (2, 5)
        assert (keep.diff(dim=1) > 0).all()


def test_token_validity_needs_all_frames() -> None:
    valid = torch.ones(1, 8, 3, dtype=torch.bool)
    valid[0, 5, 1] = False
    assert token_validity(valid, 4).tolist() == [[True, True, True, True, False, True]]
