"""MMPose: the inferencer's predictions, its demos' results, version 0, lifts into space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read
from fastamr.skeleton import get_layout

from .. import writers_pose as pose
from ..reading import clip_of, one_line
from .helpers import read_all

CLIP = pose.motion(4)


def meta(names: list[str], key: str = "keypoint_id2name") -> dict[str, Any]:
    if key == "keypoint_id2name":
        return {
            "meta_info": {"dataset_name": "coco", key: {str(place): name for place, name in enumerate(names)}}
        }
    return {"meta_info": {key: {name: place for place, name in enumerate(names)}}}


FORMS = {
    "list of frames": pose.mmpose_frames(CLIP),
    "instance_info": {"meta_info": {}, "instance_info": pose.mmpose_frames(CLIP)},
    "nested lists": [[pose.mmpose_instance(points) for points in people] for people in CLIP],
    "predictions": {"predictions": [[pose.mmpose_instance(points) for points in people] for people in CLIP]},
    "results": [{"predictions": [[pose.mmpose_instance(points) for points in people]]} for people in CLIP],
    "version 0": [
        [
            {"bbox": [0, 0, 9, 9, 1], "keypoints": np.c_[points, np.full(17, 0.5)].tolist()}
            for points in people
        ]
        for people in CLIP
    ],
    "object of frames": {
        f"frame_{frame}": [pose.mmpose_instance(people[0])] for frame, people in enumerate(CLIP)
    },
    "flat frames": [
        {"frame_id": frame} | pose.mmpose_instance(people[0]) for frame, people in enumerate(CLIP)
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_one_clip(tmp_path: Path, form: str) -> None:
    data, _ = read_all(pose.write(tmp_path / "some.json", FORMS[form]))
    assert (data.names, data.layout.name, data.coords.shape[-1]) == (["some"], "coco17", 2)
    np.testing.assert_allclose(clip_of(data, "some")[0], CLIP[:, 0])


def test_an_image(tmp_path: Path) -> None:
    document = [
        pose.mmpose_instance(points, bbox=[[0, 0, 9, 9]], bbox_score=0.9) for points in pose.motion(1, 2)[0]
    ]
    data, notes = read_all(pose.write(tmp_path / "some.json", document))
    assert (data.num_bodies, data.num_frames) == (2, 2)
    assert "2 people without a frame number are taken as those of one frame" in notes
    assert "not read: bbox, bbox_score" in notes


def test_a_folder_of_images_is_a_clip(tmp_path: Path) -> None:
    for frame, people in enumerate(CLIP):
        pose.write(tmp_path / "predictions" / f"{frame:06d}.json", [pose.mmpose_instance(people[0])])
    pose.write(tmp_path / "predictions" / "000001.json", [])
    data, _ = read_all(tmp_path / "predictions")
    (body,) = clip_of(data, "predictions")
    np.testing.assert_allclose(body[[0, 2, 3]], CLIP[[0, 2, 3], 0])
    assert not body[1].any()


class TestNames:
    @pytest.mark.parametrize("key", ["keypoint_id2name", "keypoint_name2id"])
    def test_names_decide_in_any_order(self, tmp_path: Path, key: str) -> None:
        order = np.random.default_rng(1).permutation(17)
        document = meta([pose.COCO_NAMES[place] for place in order], key)
        document["instance_info"] = pose.mmpose_frames(CLIP[:, :, order])
        data, notes = read_all(pose.write(tmp_path / "some.json", document))
        assert data.layout is get_layout("coco17")
        np.testing.assert_allclose(clip_of(data, "some")[0], CLIP[:, 0])
        assert "matched by name to layout coco17" in notes

    def test_other_names_are_a_layout_of_their_own(self, tmp_path: Path) -> None:
        document = meta([f"{'abcdefghijklmnopq'[place]}zz" for place in range(17)])
        document["meta_info"]["skeleton_links"] = [[0, place] for place in range(1, 17)]
        document["instance_info"] = pose.mmpose_frames(CLIP)
        data, notes = read_all(pose.write(tmp_path / "some.json", document))
        assert (data.layout.joints[0], data.layout.parents) == ("azz", (-1, *[0] * 16))
        assert "a layout of their own" in notes


class TestSpace:
    def test_lifts_are_of_human36m(self, tmp_path: Path) -> None:
        clip = pose.motion(3, channels=3, scale=1)
        data, notes = read_all(pose.write(tmp_path / "some.json", pose.mmpose_frames(clip)))
        assert (data.layout.name, data.coords.shape[-1]) == ("h36m17", 3)
        np.testing.assert_allclose(clip_of(data, "some")[0], clip[:, 0])
        assert "h36m17" in notes

    def test_a_list_around_the_points(self, tmp_path: Path) -> None:
        clip = pose.motion(3, channels=3, scale=1)
        frames = pose.mmpose_frames(clip)
        for frame in frames:
            instance = frame["instances"][0]
            instance["keypoints"], instance["keypoint_scores"] = (
                [instance["keypoints"]],
                [instance["keypoint_scores"]],
            )
        assert read_all(pose.write(tmp_path / "some.json", frames))[0].layout.name == "h36m17"

    def test_points_in_space_before_those_of_the_image(self, tmp_path: Path) -> None:
        clip = pose.motion(3, channels=3, scale=1)
        frames = [
            [
                pose.mmpose_instance(
                    people[0, :, :2], keypoints_3d=np.c_[people[0], np.ones(17)].tolist(), track_id=3
                )
            ]
            for people in clip
        ]
        data, notes = read_all(pose.write(tmp_path / "some.json", frames))
        np.testing.assert_allclose(clip_of(data, "some")[0], clip[:, 0])
        assert data.body_names == ["3"]
        assert "keypoints_3d is read" in notes

    def test_a_third_number_within_0_and_1_is_a_score(self, tmp_path: Path) -> None:
        data, notes = read_all(pose.write(tmp_path / "some.json", FORMS["version 0"]))
        assert data.coords.shape[-1] == 2
        assert "taken as its confidence" in notes


def test_tracks(tmp_path: Path) -> None:
    clip = pose.motion(4, 2)
    frames = pose.mmpose_frames(clip)
    for number, frame in enumerate(frames):
        for place, instance in enumerate(frame["instances"]):
            instance["track_id"] = place + 1
        if number % 2:
            frame["instances"].reverse()
    data, _ = read_all(pose.write(tmp_path / "some.json", frames), track=False)
    np.testing.assert_allclose(np.stack(clip_of(data, "some"), 1), clip)
    assert data.body_names == ["1", "2"]
    for frame in frames:
        del frame["instances"][0]["track_id"]
    data, notes = read_all(pose.write(tmp_path / "some.json", frames))
    assert "4 of 8 poses have no track id" in notes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"keypoints": [[1, 2]] * 16}, "17 scores for 16 joints"),
        ({"keypoints": [[1, 2]] * 16 + [[1]]}, "lists of unequal length"),
        ({"keypoint_scores": ["x"] * 17}, "no number"),
        ({"keypoints": [[float("inf"), 2]] * 17}, "joint 0 is at inf"),
        ({"keypoints": []}, "no keypoints"),
    ],
)
def test_a_bad_instance_costs_itself(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    frames = pose.mmpose_frames(CLIP)
    frames[2]["instances"][0] |= change
    path = pose.write(tmp_path / "some.json", {"meta_info": {}, "instance_info": frames})
    data, notes = read_all(path)
    assert "instance_info[2], person 0" in notes
    assert reason in "".join(data.dropped.values())
    pose.write(path, {"meta_info": {}, "instance_info": frames[2:3]})
    with pytest.raises(ValueError, match="nobody") as error:
        read(path)
    one_line(error, "some.json")


@pytest.mark.parametrize("value", ["x", 1.5, True, None])
def test_a_frame_without_a_number_costs_itself(tmp_path: Path, value: Any) -> None:
    frames = pose.mmpose_frames(CLIP)
    frames[2]["frame_id"] = value
    data, _ = read_all(pose.write(tmp_path / "some.json", frames))
    assert [("[2]" in key, "frame number" in why) for key, why in data.dropped.items()] == [(True, True)]
