from __future__ import annotations

import math

import pytest
import torch

from fastamr import ops
from fastamr.testing import random_clips


def paper_weight(clips: torch.Tensor, window: int, k: float, eps: float) -> torch.Tensor:
    """``1 / (1 + k e_t / (e_s + eps))`` for T divisible by the window, broadcast over the window's frames."""
    split = clips.unflatten(1, (-1, window))
    energy = (split - split.mean(2, keepdim=True)).square().sum(-1).mean(2)
    total = energy.mean((1, 2), keepdim=True)
    return (1 / (1 + k * total / (energy + eps))).repeat_interleave(window, 1)


def test_energy_form_is_the_papers() -> None:
    clips = random_clips(3, 24, 5, dtype=torch.float64)
    found = ops.motion_guidance(clips, windows=(4, 8, 12), k=0.3, kind="energy")
    expected = sum(paper_weight(clips, window, 0.3, 1e-8) for window in (4, 8, 12)) / 3
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("k", [0.001, 0.01, 1.0])
def test_entropy_form_equals_energy_form(channels: int, k: float) -> None:
    clips = random_clips(3, 22, 5, channels, dtype=torch.float64)
    entropy = ops.motion_guidance(clips, k=k, eps=1e-14)
    energy = ops.motion_guidance(clips, k=k, eps=1e-14, kind="energy")
    torch.testing.assert_close(entropy, energy)
    assert (entropy > 0).all()
    assert (entropy < 1).all()


def test_moving_joint_weighs_more_and_k_zero_weighs_one() -> None:
    clips = torch.zeros(1, 24, 4, 3)
    clips[:, :, 2] = random_clips(1, 24, 1)[:, :, 0]
    weight = ops.motion_guidance(clips)
    assert (weight[:, :, 2] > 0.5).all()
    assert (weight[:, :, [0, 1, 3]] < 0.1).all()
    assert torch.equal(ops.motion_guidance(clips, k=0.0), torch.ones(1, 24, 4))


def test_still_clip_is_finite() -> None:
    for kind in ("entropy", "energy", "histogram"):
        weight = ops.motion_guidance(torch.full((2, 12, 3, 3), 2.5), kind=kind)
        assert torch.isfinite(weight).all()
        assert (weight >= 0).all()
        assert (weight <= 1).all()


def histogram_by_loops(clips: torch.Tensor, window: int, bins: int, valid: torch.Tensor) -> torch.Tensor:
    sequences, frames, joints, _ = clips.shape
    weight = torch.zeros(sequences, frames, joints, dtype=torch.float64)
    for s in range(sequences):
        length = {
            (t, v): (clips[s, t + 1, v] - clips[s, t, v]).norm().item()
            for t in range(frames - 1)
            for v in range(joints)
            if valid[s, t, v] and valid[s, t + 1, v]
        }
        top = max(length.values())
        for start in range(0, frames, window):
            stop = min(start + window, frames)
            for v in range(joints):
                inside = [length[t, v] for t in range(start, stop - 1) if (t, v) in length]
                counts = [0] * bins
                for value in inside:
                    counts[min(int(value / top * bins), bins - 1)] += 1
                entropy = -sum(n / len(inside) * math.log(n / len(inside)) for n in counts if n)
                highest = math.log(min(bins, stop - start - 1)) if stop - start > 2 else 0.0
                weight[s, start:stop, v] = entropy / highest if highest else 0.0
    return weight * valid


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_histogram_against_loops(missing: float) -> None:
    clips = random_clips(2, 21, 4, dtype=torch.float64)
    valid = torch.rand(2, 21, 4) >= missing
    found = ops.motion_guidance(clips, windows=(5, 8), bins=6, kind="histogram", valid=valid)
    expected = (histogram_by_loops(clips, 5, 6, valid) + histogram_by_loops(clips, 8, 6, valid)) / 2
    torch.testing.assert_close(found, expected)


def test_invalid_joints_weigh_nothing_and_change_nothing_else() -> None:
    clips = random_clips(2, 24, 5, dtype=torch.float64)
    valid = torch.ones(2, 24, 5, dtype=torch.bool)
    valid[:, :, 4] = False
    spoiled = clips.clone()
    spoiled[:, :, 4] = 1e6
    for kind in ("entropy", "energy", "histogram"):
        weight = ops.motion_guidance(spoiled, kind=kind, valid=valid)
        assert (weight[:, :, 4] == 0).all()
        torch.testing.assert_close(weight[:, :, :4], ops.motion_guidance(clips[:, :, :4], kind=kind))


def test_dtype_and_empty() -> None:
    assert ops.motion_guidance(random_clips(2).half()).dtype == torch.float32
    assert ops.motion_guidance(random_clips(2)[:0]).shape == (0, 120, 25)
    assert ops.motion_guidance(random_clips(1, 1, 2), kind="histogram").abs().sum() == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "entropie"}, "did you mean 'entropy'"),
        ({"windows": ()}, "windows"),
        ({"windows": (4, 0)}, "windows entry=0"),
        ({"k": -1.0}, "k=-1.0"),
        ({"eps": 0.0}, "eps=0.0"),
        ({"kind": "histogram", "windows": (2,)}, "histogram"),
        ({"kind": "histogram", "bins": 1}, "bins=1"),
    ],
)
def test_errors(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ops.motion_guidance(torch.zeros(1, 8, 2, 3), **options)
