"""Every defect is counted where it is, and a clean clip shows none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, preprocess, synthetic_actions
from fastamr.data.audit import QualityOptions, blocks, check_quality
from fastamr.data.audit.counts import histogram

RNG = np.random.default_rng(0)


def walk(frames: int = 30, joints: int = 25) -> np.ndarray:
    """A body (T, 1, V, C) in which every joint moves a little in every frame."""
    pose = 0.4 * RNG.normal(size=(1, 1, joints, 3))
    return (pose + 0.01 * RNG.normal(size=(frames, 1, joints, 3)) + [0, 0, 3]).astype(np.float32)


def pack(*clips: np.ndarray, **more: object) -> PackedSkeletons:
    return PackedSkeletons.from_clips(list(clips), layout="ntu25", **more)  # type: ignore[arg-type]


def test_a_clean_clip_shows_nothing() -> None:
    quality = check_quality(pack(walk(), walk()))
    for name in ("empty_frames", "repeated_frames", "not_finite", "zero_joints", "jump_clips", "body_jumps"):
        assert not getattr(quality, name).any(), name
    assert not quality.freezes.any()
    assert not quality.still.any()
    assert quality.worst_jumps == []
    assert quality.centred == []


def test_empty_and_repeated_frames() -> None:
    clip = walk()
    clip[5:8] = 0
    clip[12:15] = clip[11]
    clip[20] = clip[19]
    quality = check_quality(pack(walk(), clip))
    assert quality.empty_frames.tolist() == [0, 3]
    assert quality.repeated_frames.tolist() == [0, 4]
    assert quality.longest_repeat.tolist() == [0, 3]


def test_frames_of_neighbouring_bodies_do_not_repeat_each_other() -> None:
    clip = walk(10)
    again = clip[::-1].copy()
    assert not check_quality(pack(clip, again)).repeated_frames.any()


def test_still_clips() -> None:
    still = np.repeat(walk(1), 12, axis=0)
    quality = check_quality(pack(walk(), still, walk(1)))
    assert quality.still.tolist() == [False, True, False]


def test_frozen_joints() -> None:
    clip = walk()
    clip[4:14, 0, 7] = clip[4, 0, 7]
    clip[20:26, 0, 9] = clip[20, 0, 9]
    quality = check_quality(pack(walk(), clip), QualityOptions(freeze=8))
    assert quality.freezes[7] == 10
    assert quality.freezes.sum() == 10
    assert quality.freeze_clips.tolist() == [0, 10]
    assert check_quality(pack(clip), QualityOptions(freeze=6)).freezes[9] == 6
    assert check_quality(pack(clip), QualityOptions(freeze=11)).freezes.sum() == 0


def test_repeated_frames_do_not_freeze_joints() -> None:
    clip = walk()
    clip[10:20] = clip[10]
    assert check_quality(pack(clip)).freezes.sum() == 0


def test_joint_and_body_jumps() -> None:
    clip = walk()
    clip[10, 0, 4] += 3.0
    other = walk()
    other[15:] += 5.0
    quality = check_quality(pack(clip, other))
    assert quality.jumps[4] == 2, "there and back"
    assert quality.jumps.sum() == 2
    assert quality.jump_clips.tolist() == [2, 0]
    assert quality.body_jumps.tolist() == [0, 1]
    clip_index, frame, joint, size = quality.worst_jumps[0]
    assert (clip_index, frame, joint) == (1, 15, 25)
    assert size > 5
    assert check_quality(pack(clip), QualityOptions(jump=20)).jumps.sum() == 0


def test_an_unseen_joint_does_not_jump_where_the_body_does() -> None:
    clip = walk()
    clip[15:] += 5.0
    seen = np.ones(clip.shape[:3], dtype=bool)
    seen[:, 0, 3] = False
    quality = check_quality(pack(clip, valid=[seen]))
    assert quality.body_jumps.tolist() == [1]
    assert quality.jumps.sum() == 0


def test_numbers_that_are_none_are_counted_and_spread_nowhere() -> None:
    data = pack(walk(), walk())
    coords = data.coords.clone()
    coords[3, 5, 0] = float("nan")
    coords[40, 1] = float("inf")
    quality = check_quality(dataclasses.replace(data, coords=coords))
    assert quality.not_finite.tolist() == [1, 3]
    assert not quality.jump_clips.any()
    assert not quality.body_jumps.any()


def test_zero_joints_unless_unseen_or_centred() -> None:
    clip = walk()
    clip[3:6, 0, 8] = 0
    assert check_quality(pack(clip)).zero_joints.tolist() == [3]
    seen = np.ones(clip.shape[:3], dtype=bool)
    seen[3:6, 0, 8] = False
    marked = check_quality(pack(clip, valid=[seen]))
    assert marked.zero_joints.tolist() == [0]
    assert marked.unseen_joints[8] == 3
    assert marked.jump_clips.tolist() == [0], "a joint that was not seen does not jump"
    centred = check_quality(preprocess(pack(walk(), walk()), ["center:frame=every"]))
    assert centred.centred == [0]
    assert not centred.zero_joints.any()
    assert centred.freezes.sum() == 0


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = synthetic_actions(24, seed=1, frames=(10, 40), drop_joints=0.1)
    whole = check_quality(data)
    monkeypatch.setattr(blocks.body_blocks, "__defaults__", (37,))
    parts = check_quality(data)
    for item in dataclasses.fields(whole):
        assert np.array_equal(getattr(whole, item.name), getattr(parts, item.name)), item.name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=60), st.integers(1, 30))
def test_histogram_holds_every_value(values: list[int], bins: int) -> None:
    found = histogram(np.array(values), bins)
    edges, counts = found["edges"], found["counts"]
    assert sum(counts) == len(values)
    assert len(edges) == len(counts) + 1
    assert len(counts) <= bins + 1
    assert edges[0] == min(values)
    assert edges[-1] > max(values)


def test_float16_is_read_as_float32() -> None:
    data = preprocess(pack(walk(), walk()), ["center"])
    assert data.coords.dtype == torch.float32
    assert check_quality(data.half()).not_finite.tolist() == [0, 0]


@pytest.mark.parametrize("option", [{"jump": 0.0}, {"freeze": 1}])
def test_options_are_checked(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(option))}="):
        QualityOptions(**option)  # type: ignore[arg-type]
