"""The sampling kernel against the reference: the same frames, and float64's coordinates within rounding."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels.sample_clips import _configs

from fastamr import ops, reference
from fastamr.testing import assert_as_good_as, random_clips

from .repeats import assert_repeats

DTYPES = [torch.float32, torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.gpu)]
LENGTHS = (1, 2, 31, 64, 65, 200)


def make(
    device: torch.device, joints: int = 5, channels: int = 3, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Coordinates, offsets and sequence ids, repeated and out of order."""
    offsets = torch.tensor([0, *LENGTHS], device=device).cumsum(0)
    coords = random_clips(1, sum(LENGTHS), joints, channels, dtype=dtype, device=device)[0]
    return coords, offsets, torch.tensor([5, 2, 0, 5, 1, 4, 3], device=device)


def make_seed(device: torch.device) -> torch.Tensor:
    return torch.tensor([-123456789012345, (5 << 32) | 77], device=device)


def check(
    coords: torch.Tensor,
    offsets: torch.Tensor,
    ids: torch.Tensor,
    frames: int,
    seed: torch.Tensor | None,
    **options: object,
) -> None:
    """As exact as PyTorch, no signed bias, the same bits twice."""
    found = ops.sample_clips(coords, offsets, ids, frames, seed, **options)
    truth = reference.sample_clips(coords.double(), offsets, ids, frames, seed, **options)
    peer = reference.sample_clips(coords, offsets, ids, frames, seed, **options)
    assert found.dtype == torch.float32
    assert found.shape == truth.shape
    if not found.numel():
        return
    assert_as_good_as(found, truth, peer)
    torch.testing.assert_close(found, peer, rtol=1e-6, atol=2e-6)
    error = (found.double() - truth).flatten()
    # A rotation's rounding is shared by a whole sequence: its errors are no independent draws.
    if options.get("max_angle") == 0 and len(error) > 30:
        assert error.mean().abs() <= 4 * error.square().mean().sqrt() / len(error) ** 0.5
    assert_repeats([found], lambda: [ops.sample_clips(coords, offsets, ids, frames, seed, **options)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [2, 3])
def test_crop_resize_and_turn(channels: int, dtype: torch.dtype, device: torch.device) -> None:
    check(*make(device, 5, channels, dtype), 40, make_seed(device))


@pytest.mark.parametrize("joints", [1, 3, 4, 25, 133])
def test_joints(joints: int, device: torch.device) -> None:
    check(*make(device, joints), 11, make_seed(device))


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_around_the_block_sizes(extra: int, device: torch.device) -> None:
    block = _configs(64)[0].blocks["BLOCK_T"]
    check(*make(device, 64 + extra), block + extra, make_seed(device))


@pytest.mark.thinned
@pytest.mark.parametrize("frames", [1, 7, 120])
@pytest.mark.parametrize("crop", [(0.95,), (1.0,), (0.5, 1.0), (0.3, 0.3)])
def test_the_same_frames(crop: tuple[float, ...], frames: int, device: torch.device) -> None:
    """Coordinates far apart from frame to frame: another frame or another weight would be seen at once."""
    coords, offsets, ids = make(device, 1, 1)
    coords = torch.arange(len(coords), dtype=torch.float32, device=device)[:, None, None] * 100
    seed = make_seed(device) if len(crop) == 2 else None
    for least in (1, 64):
        options = {"crop": crop, "min_frames": least, "max_angle": 0.0}
        found = ops.sample_clips(coords, offsets, ids, frames, seed, **options)
        expected = reference.sample_clips(coords, offsets, ids, frames, seed, **options)
        torch.testing.assert_close(found, expected, rtol=3e-7, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"max_angle": 0.0}, {"crop": (0.95,)}, {"crop": (0.95,), "max_angle": 0.0}]
)
def test_options(options: dict, device: torch.device) -> None:
    check(*make(device), 16, make_seed(device), **options)
    if options == {"crop": (0.95,), "max_angle": 0.0}:
        check(*make(device), 16, None, **options)


@pytest.mark.thinned
@pytest.mark.parametrize("max_angle", [3.2, 50.0])
@pytest.mark.parametrize("channels", [2, 3])
def test_angles_all_around(channels: int, max_angle: float, device: torch.device) -> None:
    """Every quadrant of sine and cosine."""
    coords, offsets, _ = make(device, 3, channels)
    check(coords, offsets, torch.full((40,), 5, device=device), 2, make_seed(device), max_angle=max_angle)


def test_between_far_apart_frames_both_ends_are_met(device: torch.device) -> None:
    """Near the right frame the sum starts there: from the left one, at 1e8, the rounding would be 3."""
    coords = torch.tensor([1e8, 1.0], device=device)[:, None, None]
    offsets, ids = torch.tensor([0, 2], device=device), torch.tensor([0], device=device)
    clips = ops.sample_clips(coords, offsets, ids, 128, None, crop=(1.0,), max_angle=0.0)
    assert abs(clips[0, 95, 0, 0].item() - (1e8 + 254 / 256 * (1 - 1e8))) < 0.5


def test_groups_share_crop_and_rotation(device: torch.device) -> None:
    coords, offsets, _ = make(device)
    ids = torch.tensor([5, 5, 5, 4], device=device)
    group = torch.tensor([7, -8, 7, 2**40 + 3], device=device)
    check(coords, offsets, ids, 32, make_seed(device), group=group)
    clips = ops.sample_clips(coords, offsets, ids, 32, make_seed(device), group=group)
    assert torch.equal(clips[0], clips[2])
    assert not torch.allclose(clips[0], clips[1])


def test_inputs_of_other_layouts(device: torch.device) -> None:
    coords, offsets, ids = make(device, 6)
    group = torch.arange(14, device=device)
    for view in (coords.permute(2, 1, 0).contiguous().permute(2, 1, 0), coords[:, ::2], coords[..., :2]):
        check(view, offsets, ids, 9, make_seed(device))
    spread = [value.repeat_interleave(2)[::2] for value in (offsets, ids, make_seed(device))]
    assert not spread[0].is_contiguous()
    check(coords, spread[0], spread[1], 9, spread[2], group=group[::2])


def test_no_sequences_and_other_channels(device: torch.device) -> None:
    coords, offsets, ids = make(device)
    check(coords, offsets, ids[:0], 9, make_seed(device))
    for channels in (1, 4, 16):
        check(*make(device, 2, channels), 5, make_seed(device), max_angle=0.0)
    with pytest.raises(RuntimeError, match="more than 16 channels"):
        ops.sample_clips(*make(device, 2, 17), 5, make_seed(device), max_angle=0.0)
    with pytest.raises(RuntimeError, match="float64 takes the reference"):
        ops.sample_clips(coords.double(), offsets, ids, 5, make_seed(device))


def test_a_sequence_does_not_depend_on_the_batch(device: torch.device) -> None:
    coords, offsets, ids = make(device)
    clips = ops.sample_clips(coords, offsets, ids, 12, make_seed(device))
    one = ops.sample_clips(coords, offsets, ids[:1], 12, make_seed(device))
    assert torch.equal(one, clips[:1])
