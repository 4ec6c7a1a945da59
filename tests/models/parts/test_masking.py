from __future__ import annotations

import pytest
import torch

from fastamr import ops
from fastamr.models.parts.masking import STRATEGIES, choose_visible, motion_scores, product_of, token_validity
from fastamr.testing import random_clips


def scores_for(strategy: str, sequences: int, tokens: int) -> torch.Tensor | None:
    """Any scores where the strategy wants some."""
    return torch.randn(sequences, tokens).log_softmax(1) if strategy == "motion" else None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("times", "joints"), [(30, 25), (4, 3), (1, 7), (7, 1)])
def test_exactly_k_distinct_ascending(strategy: str, times: int, joints: int) -> None:
    for visible in {1, 2, times, joints, times * joints // 2 + 1, times * joints - 1, times * joints}:
        if not 1 <= visible <= times * joints:
            continue
        scores = scores_for(strategy, 3, times * joints)
        keep = choose_visible(ops.make_seed(), 3, times, joints, visible, strategy=strategy, scores=scores)
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
        scores = scores_for(strategy, 2, 750)
        draw = [
            choose_visible(torch.tensor([s, c]), 2, 30, 25, 75, strategy=strategy, scores=scores)
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
        scores=scores_for(strategy, 20, 750),
    )
    missing = torch.isin(keep % 25, torch.tensor([3, 10, 24]))
    if strategy in ("random", "joint", "motion"):
        assert not missing.any()
    assert (keep.diff(dim=1) > 0).all()


def test_all_missing_still_gives_k_distinct() -> None:
    valid = torch.zeros(2, 12, dtype=torch.bool)
    for strategy in STRATEGIES:
        scores = scores_for(strategy, 2, 12)
        keep = choose_visible(ops.make_seed(), 2, 4, 3, 5, strategy=strategy, valid=valid, scores=scores)
        assert keep.shape == (2, 5)
        assert (keep.diff(dim=1) > 0).all()


def test_token_validity_needs_all_frames() -> None:
    valid = torch.ones(1, 8, 3, dtype=torch.bool)
    valid[0, 5, 1] = False
    assert token_validity(valid, 4).tolist() == [[True, True, True, True, False, True]]


def test_motion_scores_by_hand() -> None:
    """Two joints, three patches of two frames, one channel's worth of motion in joint 1 from patch 0 to 1."""
    clips = torch.zeros(1, 6, 2, 3)
    clips[0, 2:, 1, 0] = torch.tensor([0.3, 0.6, 0.6, 0.6])
    # |patch 1 - patch 0| is 0.3 and 0.6 in one of 3 channels: mean 0.9 / 6 = 0.15; |patch 2 - patch 1| is 0.3, 0.
    intensity = torch.tensor([0.0, 0.15, 0.0, 0.15, 0.0, 0.05])
    expected = (intensity / (0.15 * 0.8)).log_softmax(0)
    torch.testing.assert_close(motion_scores(clips, patch_frames=2, tau=0.8)[0], expected)
    sharper = motion_scores(clips, patch_frames=2, tau=0.1)[0]
    assert sharper[1] - sharper[0] > expected[1] - expected[0]


def test_motion_scores_of_still_and_short_clips_are_uniform() -> None:
    still = random_clips(2, 24)[:, :1].expand(-1, 24, -1, -1)
    for scores in (motion_scores(still, patch_frames=4), motion_scores(random_clips(2, 4), patch_frames=4)):
        torch.testing.assert_close(scores.softmax(1), torch.full_like(scores, 1 / scores.shape[1]))


def test_motion_scores_leave_out_missing_numbers() -> None:
    """A joint that jumps to zero where it was lost has not moved."""
    clips = random_clips(1, 24)
    valid = torch.ones(1, 24, 25, dtype=torch.bool)
    valid[0, 4:8, 3] = False
    valid[0, 16:, 9] = False
    valid[0, 13, 5] = False
    scores = motion_scores(torch.where(valid[..., None], clips, 0), patch_frames=4, valid=valid)
    intensity = torch.zeros(6, 25)
    for patch in range(1, 6):
        for joint in range(25):
            now, before = slice(4 * patch, 4 * patch + 4), slice(4 * patch - 4, 4 * patch)
            known = valid[0, now, joint] & valid[0, before, joint]
            moved = (clips[0, now, joint] - clips[0, before, joint]).abs()[known]
            intensity[patch, joint] = moved.mean() if known.any() else 0
    intensity[0] = intensity[1]
    expected = (intensity / (intensity.max() * 0.8 + 1e-10)).flatten().log_softmax(0)
    torch.testing.assert_close(scores[0], expected)


def test_moving_tokens_are_hidden_more_often_in_the_order_of_their_motion() -> None:
    """Ten joints swing with amplitudes 0 to 9; over 4,000 masks the more a joint moves the less it is seen."""
    swing = torch.tensor([1.0, -1.0]).repeat(3).repeat_interleave(4)[:, None] * torch.arange(10.0)
    clips = swing[None, :, :, None].expand(4000, -1, -1, 3)
    scores = motion_scores(clips, patch_frames=4, tau=0.4)
    keep = choose_visible(ops.make_seed(), 4000, 6, 10, 20, strategy="motion", scores=scores)
    seen = torch.bincount((keep % 10).flatten(), minlength=10) / (4000 * 6)
    assert (seen.diff() < 0).all(), seen
    assert seen.mean() == pytest.approx(20 / 60)
    # The first patch copies the second's motion, so time makes no difference here.
    by_time = torch.bincount((keep // 10).flatten(), minlength=6) / (4000 * 10)
    assert by_time.max() - by_time.min() < 0.02


def test_one_visible_token_is_drawn_with_the_closed_form() -> None:
    """Keeping the smallest of ``log p + Gumbel`` of two tokens keeps the first with probability ``p1 / (p0 + p1)``."""
    scores = torch.tensor([0.2, 0.8]).log().expand(20000, -1)
    keep = choose_visible(ops.make_seed(), 20000, 1, 2, 1, strategy="motion", scores=scores)
    assert (keep == 0).float().mean() == pytest.approx(0.8, abs=0.012)


def test_scores_belong_to_the_motion_strategy() -> None:
    with pytest.raises(ValueError, match="strategy 'motion' needs scores"):
        choose_visible(ops.make_seed(), 2, 6, 25, 15, strategy="motion")
    with pytest.raises(ValueError, match="strategy 'random' takes no scores"):
        choose_visible(ops.make_seed(), 2, 6, 25, 15, scores=torch.zeros(2, 150))
