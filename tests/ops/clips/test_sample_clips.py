from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.reference.sample_clips import crop_bounds, rotations

LENGTHS = (1, 2, 31, 64, 65, 200)
OFFSETS = torch.tensor([0, *LENGTHS]).cumsum(0)


def coordinates(joints: int = 5, channels: int = 3) -> torch.Tensor:
    return torch.randn(int(OFFSETS[-1]), joints, channels)


@pytest.mark.parametrize("frames", [1, 16, 64, 120])
def test_central_crop_and_resize_equal_interpolate(frames: int) -> None:
    """Evaluation mode against torch's own linear interpolation of the central frames."""
    coords = coordinates().double()
    ids = torch.arange(len(LENGTHS))
    clips = ops.sample_clips(coords, OFFSETS, ids, frames, None, crop=(0.95,), max_angle=0.0)
    assert clips.shape == (6, frames, 5, 3)
    for row, length in enumerate(LENGTHS):
        skip = int((1 - 0.95) * length / 2)
        piece = coords[OFFSETS[row] + skip : OFFSETS[row + 1] - skip]
        expected = F.interpolate(piece.flatten(1).T[None], frames, mode="linear", align_corners=False)
        torch.testing.assert_close(clips[row].flatten(1), expected[0].T, rtol=1e-5, atol=1e-5)


def test_random_crop_range() -> None:
    """Crops cover 50-100 % of the frames, at least min_frames, and stay inside the sequence."""
    lengths = torch.full((20000,), 200)
    words = torch.randint(0, 2**32, (20000, 2))
    first, count = crop_bounds(lengths, words, (0.5, 1.0), 64)
    assert count.min() == 100
    assert 198 <= count.max() <= 200
    assert abs(count.double().mean() - 149.5) < 1
    assert first.min() == 0
    assert (first + count <= 200).all()
    assert (first + count == 200).any()
    _, short = crop_bounds(torch.full((100,), 70), words[:100], (0.5, 1.0), 64)
    assert short.min() == 64
    first, tiny = crop_bounds(torch.full((100,), 9), words[:100], (0.5, 1.0), 64)
    assert (tiny == 9).all()
    assert (first == 0).all()


def test_a_random_crop_is_a_resized_piece_of_the_sequence() -> None:
    """Coordinates that equal the frame number come out as an even ramp of 50-100 % of the length."""
    coords = torch.arange(200.0).view(200, 1, 1).expand(200, 2, 3)
    seed = torch.tensor([4, 0])
    clips = ops.sample_clips(
        coords, torch.tensor([0, 200]), torch.zeros(500, dtype=torch.int64), 120, seed, max_angle=0.0
    )
    step = clips[:, 1:, 0, 0].diff(dim=1)
    inner = step[:, 1:-2]
    torch.testing.assert_close(inner, inner[:, :1].expand_as(inner), rtol=1e-3, atol=1e-3)
    share = inner[:, 0] * 120 / 200
    assert share.min() >= 0.499
    assert share.max() <= 1.001
    assert share.std() > 0.1


def test_rotation_is_a_rotation_within_the_angle() -> None:
    words = torch.randint(0, 2**32, (4000, 3))
    turn = rotations(words, 3, 0.3).double()
    torch.testing.assert_close(
        turn @ turn.transpose(1, 2), torch.eye(3).double().expand(4000, 3, 3), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(4000).double(), rtol=0, atol=1e-6)
    yaw, pitch, roll = (
        torch.atan2(turn[:, 1, 0], turn[:, 0, 0]),
        -torch.asin(turn[:, 2, 0]),
        torch.atan2(turn[:, 2, 1], turn[:, 2, 2]),
    )
    for angle in (yaw, pitch, roll):
        assert angle.abs().max() <= 0.3 + 1e-6
        assert abs(angle.mean()) < 0.01
        assert abs(angle.std() - 0.3 / math.sqrt(3)) < 0.01


@pytest.mark.parametrize("channels", [2, 3])
def test_rotation_keeps_distances(channels: int) -> None:
    coords = coordinates(channels=channels)
    ids, seed = torch.tensor([5, 5, 3]), torch.tensor([4, 0])
    turned = ops.sample_clips(coords, OFFSETS, ids, 32, seed)
    straight = ops.sample_clips(coords, OFFSETS, ids, 32, seed, max_angle=0.0)
    assert not torch.allclose(turned, straight)
    torch.testing.assert_close(turned.norm(dim=-1), straight.norm(dim=-1))
    torch.testing.assert_close(
        (turned[:, :, 0] - turned[:, :, 1]).norm(dim=-1), (straight[:, :, 0] - straight[:, :, 1]).norm(dim=-1)
    )


def test_groups_share_crop_and_rotation() -> None:
    coords = coordinates()
    ids, seed = torch.tensor([5, 5, 5]), torch.tensor([4, 0])
    group = torch.tensor([7, 8, 7])
    clips = ops.sample_clips(coords, OFFSETS, ids, 32, seed, group=group)
    assert torch.equal(clips[0], clips[2])
    assert not torch.allclose(clips[0], clips[1])
    alone = ops.sample_clips(coords, OFFSETS, ids[:1], 32, seed, group=group[1:2])
    assert torch.equal(alone[0], clips[1]), "the group, not the row, names the draw"


def test_seed_decides() -> None:
    coords, ids = coordinates(), torch.tensor([5, 3])
    first = ops.sample_clips(coords, OFFSETS, ids, 32, torch.tensor([4, 0]))
    assert torch.equal(first, ops.sample_clips(coords, OFFSETS, ids, 32, torch.tensor([4, 0])))
    assert not torch.equal(first, ops.sample_clips(coords, OFFSETS, ids, 32, torch.tensor([4, 1])))


def test_half_storage_one_channel_and_empty_batch() -> None:
    coords = coordinates().half()
    ids = torch.tensor([5, 0])
    clips = ops.sample_clips(coords, OFFSETS, ids, 40, torch.tensor([4, 0]))
    assert clips.dtype == torch.float32
    exact = ops.sample_clips(coords.float(), OFFSETS, ids, 40, torch.tensor([4, 0]))
    assert torch.equal(clips, exact)
    valid = torch.ones(int(OFFSETS[-1]), 5, 1)
    assert (ops.sample_clips(valid, OFFSETS, ids, 40, torch.tensor([4, 0]), max_angle=0.0) == 1).all()
    assert ops.sample_clips(coords, OFFSETS, ids[:0], 40, torch.tensor([4, 0])).shape == (0, 40, 5, 3)
    assert (clips[1] - clips[1, :1] == 0).all(), "a single frame is repeated"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"frames": 0}, "frames=0"),
        ({"crop": (0.9, 0.5)}, "crop"),
        ({"crop": (0.0, 0.5)}, "crop"),
        ({"crop": (0.5, 0.6, 0.7)}, "crop"),
        ({"min_frames": 0}, "min_frames=0"),
        ({"max_angle": -0.1}, "max_angle=-0.1"),
        ({"seed": None}, "seed=None"),
        ({"group": torch.zeros(1, dtype=torch.int64)}, "group"),
        ({"coords": torch.zeros(363, 5, 1)}, "rotation needs"),
        ({"coords": torch.zeros(363, 5)}, "coords must have shape"),
    ],
)
def test_errors(options: dict, match: str) -> None:
    arguments = {
        "coords": coordinates(),
        "offsets": OFFSETS,
        "sequence_ids": torch.tensor([0, 1]),
        "frames": 8,
        "seed": torch.tensor([1, 0]),
        **options,
    }
    with pytest.raises(ValueError, match=match):
        ops.sample_clips(**arguments)
