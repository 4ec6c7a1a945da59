from __future__ import annotations

import pytest
import torch

from fastamr import ops


@pytest.mark.parametrize(
    ("frames", "joints", "channels", "patch"), [(8, 3, 3, 4), (6, 5, 2, 1), (5, 1, 3, 5)]
)
def test_against_loops(frames: int, joints: int, channels: int, patch: int) -> None:
    clips = torch.randn(2, frames, joints, channels)
    tokens = frames // patch * joints
    keep = torch.stack([torch.randperm(tokens)[: max(1, tokens // 2)] for _ in range(2)]).int()
    patches = ops.patch_gather(clips, keep, patch_frames=patch)
    for s in range(2):
        for k, token in enumerate(keep[s].tolist()):
            time, joint = divmod(token, joints)
            expected = [
                clips[s, time * patch + frame, joint, channel].item()
                for frame in range(patch)
                for channel in range(channels)
            ]
            assert patches[s, k].tolist() == expected


def test_non_contiguous_half_and_empty() -> None:
    clips = torch.randn(2, 3, 25, 8).permute(0, 3, 2, 1).half()
    keep = torch.tensor([[0, 49], [3, 7]])
    assert not clips.is_contiguous()
    expected = ops.patch_gather(clips.contiguous(), keep, patch_frames=4)
    found = ops.patch_gather(clips, keep, patch_frames=4)
    assert found.dtype == torch.float16
    assert torch.equal(found, expected)
    assert ops.patch_gather(clips[:0], keep[:0], patch_frames=4).shape == (0, 2, 12)


def test_carries_no_gradient() -> None:
    clips = torch.randn(1, 4, 2, 3, requires_grad=True)
    assert not ops.patch_gather(clips, torch.tensor([[0]]), patch_frames=2).requires_grad


def test_errors() -> None:
    clips = torch.zeros(2, 10, 3, 3)
    keep = torch.zeros(2, 1, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"patch_frames=4 does not divide frames=10.*\[1, 2, 5, 10\]"):
        ops.patch_gather(clips, keep, patch_frames=4)
    with pytest.raises(ValueError, match="clips must have shape"):
        ops.patch_gather(clips[0], keep, patch_frames=5)
    with pytest.raises(ValueError, match="keep must have shape"):
        ops.patch_gather(clips, keep[:1], patch_frames=5)
    with pytest.raises(TypeError, match="keep must be of dtype"):
        ops.patch_gather(clips, keep.float(), patch_frames=5)
