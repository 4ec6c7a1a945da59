from __future__ import annotations

import math

import pytest
import torch

from fastamr import ops
from fastamr.testing import assert_as_good_as, random_clips


def energy_by_loops(clips: torch.Tensor, window: int, valid: torch.Tensor | None = None) -> torch.Tensor:
    sequences, frames, joints, _ = clips.shape
    energy = torch.zeros(sequences, math.ceil(frames / window), joints, dtype=torch.float64)
    for s in range(sequences):
        for w, start in enumerate(range(0, frames, window)):
            for v in range(joints):
                points = [
                    clips[s, t, v].double()
                    for t in range(start, min(start + window, frames))
                    if valid is None or valid[s, t, v]
                ]
                if points:
                    stack = torch.stack(points)
                    energy[s, w, v] = (stack - stack.mean(0)).square().sum(1).mean()
    return energy


@pytest.mark.parametrize("window", [1, 3, 4, 5, 11, 12, 40])
@pytest.mark.parametrize("channels", [2, 3])
def test_against_loops(window: int, channels: int) -> None:
    clips = random_clips(2, 11, 3, channels, dtype=torch.float64)
    energy, entropy = ops.motion_entropy(clips, window=window)
    expected = energy_by_loops(clips, window)
    torch.testing.assert_close(energy, expected)
    torch.testing.assert_close(
        entropy, 0.5 * channels * torch.log(2 * math.pi * math.e * (expected + 1e-8) / channels)
    )


def test_known_value() -> None:
    """Two positions 2 m apart: every frame is 1 m from the mean, so the energy is 1 m^2."""
    clips = torch.tensor([0.0, 2.0, 0.0, 2.0]).view(1, 4, 1, 1).expand(1, 4, 1, 3) * torch.tensor(
        [1.0, 0.0, 0.0]
    )
    energy, entropy = ops.motion_entropy(clips, window=4)
    assert energy.item() == 1.0
    assert entropy.item() == pytest.approx(1.5 * math.log(2 * math.pi * math.e * (1 + 1e-8) / 3), rel=1e-6)


def test_entropy_is_that_of_a_gaussian() -> None:
    energy, entropy = ops.motion_entropy(torch.randn(1, 4000, 1, 3, dtype=torch.float64) * 0.2, window=4000)
    gaussian = torch.distributions.Normal(0.0, (energy.item() / 3) ** 0.5).entropy() * 3
    assert entropy.item() == pytest.approx(gaussian.item(), rel=1e-5)


def test_valid_frames_only() -> None:
    clips = random_clips(2, 10, 3, dtype=torch.float64)
    valid = torch.rand(2, 10, 3) > 0.4
    valid[0, :4, 1] = False
    spoiled = torch.where(valid[..., None], clips, float("nan"))
    energy, entropy = ops.motion_entropy(spoiled, window=4, valid=valid)
    torch.testing.assert_close(energy, energy_by_loops(clips, 4, valid))
    assert energy[0, 0, 1] == 0
    assert torch.isfinite(entropy).all()


def test_small_motion_far_from_the_origin() -> None:
    """A motion of 1 mm at 10 m keeps its energy in float32: no cancellation."""
    wave = 1e-3 * torch.sin(torch.arange(12) * 1.3).view(1, 12, 1, 1).double()
    clips = (10.0 + wave.expand(1, 12, 1, 3)).float()
    truth = ops.motion_entropy(clips.double(), window=4)[0]
    torch.testing.assert_close(ops.motion_entropy(clips, window=4)[0].double(), truth, rtol=2e-3, atol=0)


def test_as_exact_as_pytorch_and_dtypes() -> None:
    clips = random_clips(2, 24, 5)
    energy, _ = ops.motion_entropy(clips, window=8)
    split = clips.unflatten(1, (3, 8))
    peer = split.var(2, unbiased=False).sum(-1)
    assert_as_good_as(energy, ops.motion_entropy(clips.double(), window=8)[0], peer)
    assert ops.motion_entropy(clips.half(), window=8)[0].dtype == torch.float32
    assert ops.motion_entropy(clips[:0], window=8)[0].shape == (0, 3, 5)


def test_errors() -> None:
    clips = torch.zeros(1, 8, 2, 3)
    with pytest.raises(ValueError, match="window=0"):
        ops.motion_entropy(clips, window=0)
    with pytest.raises(ValueError, match="eps=0"):
        ops.motion_entropy(clips, window=4, eps=0.0)
    with pytest.raises(ValueError, match="valid must have shape"):
        ops.motion_entropy(clips, window=4, valid=torch.ones(1, 7, 2, dtype=torch.bool))
    with pytest.raises(TypeError, match="clips must be of dtype"):
        ops.motion_entropy(clips.int(), window=4)
