from typing import Any

import torch
from torch import Tensor

from fastamr import ops
from fastamr.training.clips.sampling import ClipSampler


def seed(key: int = 7) -> Tensor:
    return torch.tensor([key, 0])


def test_sampler_matches_the_op_for_each_setting(skeletons: Any) -> None:
    ids = torch.tensor([3, 1, 4])
    clips, valid = ClipSampler(skeletons, 12, crop=(0.6, 0.8), min_frames=5, max_angle=0.1)(ids, seed())
    expected = ops.sample_clips(
        skeletons.coords,
        skeletons.offsets,
        ids,
        12,
        seed(),
        crop=(0.6, 0.8),
        min_frames=5,
        max_angle=0.1,
        group=torch.tensor([3, 1, 4]),
    )
    assert valid is None
    assert torch.equal(clips, expected)


def test_bodies_of_a_clip_share_crop_and_rotation(make_skeletons: Any) -> None:
    data = make_skeletons(4, bodies=2)
    # Both bodies of a clip get the same coordinates, so equal clips mean equal crop and rotation.
    for first in range(0, data.num_bodies, 2):
        begin, middle, end = data.offsets[first : first + 3].tolist()
        data.coords[middle:end] = data.coords[begin:middle]
    clips, _ = ClipSampler(data, 16, min_frames=8)(torch.arange(8), seed())
    assert torch.equal(clips[0::2], clips[1::2])
    assert not torch.allclose(clips[0], clips[2])


def test_valid_marks_exactly_the_joints_that_come_from_valid_frames(make_skeletons: Any) -> None:
    data = make_skeletons(6, with_valid=True)
    # Where a frame is missing its coordinate is made huge: whatever it touched is far from the rest.
    data.coords[:] = torch.where(data.valid[..., None], 1.0, 1e6)
    clips, valid = ClipSampler(data, 16, min_frames=8, max_angle=0.0)(torch.arange(6), seed())
    assert valid is not None
    assert valid.shape == (6, 16, 25)
    assert torch.equal(valid, clips[..., 0] < 1.5)
    assert 0.5 < valid.float().mean() < 1.0
