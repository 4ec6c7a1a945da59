"""What must not change what is read: the order of people and of named joints, the unit's scale, empty frames around."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons

from .. import writers_pose as pose
from .helpers import read_all

PEOPLE, FRAMES = 3, 6
CLIP = pose.motion(FRAMES, PEOPLE)


def read_document(document: Any, **options: Any) -> PackedSkeletons:
    with tempfile.TemporaryDirectory() as folder:
        return read_all(pose.write(Path(folder) / "a.json", document), **options)[0]


def same(one: PackedSkeletons, other: PackedSkeletons, scale: float = 1) -> None:
    np.testing.assert_allclose(one.coords.numpy() * scale, other.coords.numpy(), rtol=1e-5)
    assert one.offsets.equal(other.offsets)
    assert one.body_start.equal(other.body_start)


PLAIN = read_document(pose.mmpose_frames(CLIP))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.permutations(range(PEOPLE)), min_size=FRAMES, max_size=FRAMES))
def test_the_order_of_people(orders: list[list[int]]) -> None:
    shuffled = np.stack([people[order] for people, order in zip(CLIP, orders, strict=True)])
    same(PLAIN, read_document(pose.mmpose_frames(shuffled)))


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(17)))
def test_the_order_of_named_joints(order: list[int]) -> None:
    names = {str(place): pose.COCO_NAMES[joint] for place, joint in enumerate(order)}
    frames = pose.mmpose_frames(CLIP[:, :, order])
    same(PLAIN, read_document({"meta_info": {"keypoint_id2name": names}, "instance_info": frames}))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1000), st.floats(0.5, 20))
def test_empty_frames_around_numbers_and_scale(before: int, after: int, first: int, scale: float) -> None:
    frames = [
        *({"instances": []} for _ in range(before)),
        *pose.mmpose_frames((CLIP * scale).astype(np.float32)),
        *({"instances": []} for _ in range(after)),
    ]
    numbered = [frame | {"frame_id": first + number} for number, frame in enumerate(frames)]
    same(PLAIN, read_document(numbered), scale)


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-9, 9)
        | st.floats(width=16)
        | st.sampled_from(["a", "1", "frame_2"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        *(
                            "people",
                            "pose_keypoints_2d",
                            "data",
                            "skeleton",
                            "pose",
                            "score",
                            "frames",
                            "bodies",
                            "x",
                            "y",
                        ),
                        *(
                            "instances",
                            "keypoints",
                            "landmarks",
                            "joint_positions",
                            "frame_id",
                            "timestamp",
                            "frame_1",
                        ),
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_read_or_refused_in_a_line(document: Any) -> None:
    message = "a.json"
    try:
        read_document(document)
    except ValueError as error:
        message = str(error)
    assert "a.json" in message
    assert "\n" not in message
