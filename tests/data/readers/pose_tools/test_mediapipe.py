"""Landmarks of MediaPipe and its like in the dialects that people write."""

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

NAMES = get_layout("mediapipe33").joints
IMAGE = pose.motion(4, joints=33, channels=3, scale=0.5)
IMAGE[..., 2] -= IMAGE[:, :, [23, 24], 2].mean(2, keepdims=True)
WORLD = IMAGE - IMAGE[:, :, [23, 24]].mean(2, keepdims=True)
POINTS = [pose.landmarks(people[0]) for people in IMAGE]
WORLD_POINTS = [pose.landmarks(people[0]) for people in WORLD]

FORMS: dict[str, Any] = {
    "frames of landmarks": POINTS,
    "frames of lists": IMAGE[:, 0].tolist(),
    "frames of lists with visibility": np.concatenate([IMAGE[:, 0], np.full((4, 33, 1), 0.9)], 2).tolist(),
    "flat frames": IMAGE[:, 0].reshape(4, 99).tolist(),
    "flat frames with visibility": np.concatenate([IMAGE[:, 0], np.full((4, 33, 1), 0.9)], 2)
    .reshape(4, 132)
    .tolist(),
    "another name": {"video": "a.mp4", "pose_data": [{"landmarks": points} for points in POINTS]},
    "frames of people": [[points] for points in POINTS],
    "landmarks": {"landmarks": POINTS},
    "frames": {"frames": [{"landmarks": points} for points in POINTS]},
    "frames with numbers": [{"frame": number, "landmarks": points} for number, points in enumerate(POINTS)],
    "pose_landmarks of a task": [
        {"pose_landmarks": [points], "pose_world_landmarks": []} for points in POINTS
    ],
    "pose_landmarks": [{"pose_landmarks": points} for points in POINTS],
    "camel case": [{"poseLandmarks": points} for points in POINTS],
    "message": [{"pose_landmarks": {"landmark": points}} for points in POINTS],
    "by name": [dict(zip(NAMES, points, strict=True)) for points in POINTS],
    "by name below": [
        {
            "frame": number,
            "landmarks": {name.upper(): point for name, point in zip(NAMES, points, strict=True)},
        }
        for number, points in enumerate(POINTS)
    ],
    "by index": [
        {"frame": number, "landmarks": {str(place): point for place, point in enumerate(points)}}
        for number, points in enumerate(POINTS)
    ],
    "by number": {f"frame_{number}": points for number, points in enumerate(POINTS)},
    "presence": [[point | {"presence": 1.0} for point in points] for points in POINTS],
    "people with poses": [{"poses": [{"id": 3, "landmarks": points}]} for points in POINTS],
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_one_clip(tmp_path: Path, form: str) -> None:
    data, notes = read_all(pose.write(tmp_path / "some.json", FORMS[form]))
    assert (data.names, data.layout.name, data.coords.shape[-1]) == (["some"], "mediapipe33", 3)
    np.testing.assert_allclose(clip_of(data, "some")[0], IMAGE[:, 0], rtol=1e-6)
    assert "image landmarks: z has about the scale of x" in notes
    assert "shares of the image's width and height" in notes
    if form == "presence":
        assert "not read: presence" in notes


class TestWorld:
    @pytest.mark.parametrize(
        "frame",
        [
            lambda number: {"pose_landmarks": POINTS[number], "pose_world_landmarks": WORLD_POINTS[number]},
            lambda number: {
                "pose_landmarks": [POINTS[number]],
                "pose_world_landmarks": [WORLD_POINTS[number]],
            },
            lambda number: {"landmarks": [POINTS[number]], "worldLandmarks": [WORLD_POINTS[number]]},
        ],
    )
    def test_both_are_told(self, tmp_path: Path, frame: Any) -> None:
        data, notes = read_all(pose.write(tmp_path / "some.json", [frame(number) for number in range(4)]))
        np.testing.assert_allclose(clip_of(data, "some")[0], WORLD[:, 0], rtol=1e-6)
        assert "world landmarks: metres" in notes
        assert "landmarks" in next(line for line in notes.splitlines() if "not read" in line)

    def test_fields_that_list_frames(self, tmp_path: Path) -> None:
        document = {"pose_landmarks": POINTS, "pose_world_landmarks": WORLD_POINTS}
        data, _ = read_all(pose.write(tmp_path / "some.json", document))
        np.testing.assert_allclose(clip_of(data, "some")[0], WORLD[:, 0], rtol=1e-6)

    def test_a_frame_that_lacks_the_world_is_left_out(self, tmp_path: Path) -> None:
        document: list[dict[str, Any]] = [
            {"pose_landmarks": POINTS[number], "pose_world_landmarks": WORLD_POINTS[number]}
            for number in range(4)
        ]
        document[2]["pose_world_landmarks"] = None
        data, notes = read_all(pose.write(tmp_path / "some.json", document))
        (body,) = clip_of(data, "some")
        assert body.any(axis=(1, 2)).tolist() == [True, True, False, True]
        assert "no pose_world_landmarks" in notes

    def test_the_hips_tell_where_nothing_else_does(self, tmp_path: Path) -> None:
        _, notes = read_all(pose.write(tmp_path / "some.json", WORLD_POINTS))
        assert "taken as world landmarks: metres" in notes


class TestFrames:
    def test_nobody(self, tmp_path: Path) -> None:
        for nobody in (None, [], {"pose_landmarks": None}, {"pose_landmarks": []}):
            document = [nobody, *POINTS[:2], nobody, POINTS[3], nobody]
            data, _ = read_all(pose.write(tmp_path / "some.json", document))
            assert clip_of(data, "some")[0].any(axis=(1, 2)).tolist() == [True, True, False, True]

    @pytest.mark.parametrize(
        ("key", "step", "said"),
        [
            ("timestamp_ms", 40, False),
            ("timestampMs", 40.0, False),
            ("timestamp", 0.04, True),
            ("timestamp", 40, True),
            ("time", 40000, True),
            ("time_sec", 0.04, False),
        ],
    )
    def test_time_stamps(self, tmp_path: Path, key: str, step: float, said: bool) -> None:
        document = [{key: 7 + number * step, "landmarks": POINTS[number % 4]} for number in (0, 1, 2, 3, 5)]
        data, notes = read_all(pose.write(tmp_path / "some.json", document))
        assert data.fps.tolist() == pytest.approx([25], rel=1e-3)
        assert clip_of(data, "some")[0].any(axis=(1, 2)).tolist() == [True, True, True, True, False, True]
        assert ("is taken as" in notes) == said

    def test_clocks_and_rates(self, tmp_path: Path) -> None:
        document: Any = [
            {"timestamp": f"2026-01-02T03:04:05.{number * 50:03d}Z", "landmarks": POINTS[number]}
            for number in range(4)
        ]
        assert read_all(pose.write(tmp_path / "a.json", document))[0].fps.tolist() == pytest.approx([20])
        document = {"fps": 24, "frames": POINTS}
        assert read_all(pose.write(tmp_path / "b.json", document))[0].fps.tolist() == [24]
        document = {"metadata": {"frame_rate": 12.5}, "frames": POINTS}
        assert read_all(pose.write(tmp_path / "c.json", document))[0].fps.tolist() == [12.5]
        document = [{"timestamp": "soon", "landmarks": points} for points in POINTS]
        data, notes = read_all(pose.write(tmp_path / "d.json", document))
        assert data.fps.isnan().all()
        assert "'timestamp' is not understood in 4 of 4 frames" in notes

    def test_photographs(self, tmp_path: Path) -> None:
        document = [{"timestamp_ms": number * 60000, "landmarks": POINTS[number]} for number in range(4)]
        with pytest.raises(ValueError, match="60 s apart, which is no motion") as error:
            read(pose.write(tmp_path / "some.json", document))
        one_line(error, "some.json")

    def test_a_folder_with_a_file_a_frame(self, tmp_path: Path) -> None:
        for number, points in enumerate(POINTS):
            pose.write(tmp_path / "walk" / f"frame_{number:05d}.json", {"landmarks": points})
        data, _ = read_all(tmp_path / "walk")
        assert data.names == ["walk"]
        np.testing.assert_allclose(clip_of(data, "walk")[0], IMAGE[:, 0], rtol=1e-6)

    def test_several_videos_of_a_document(self, tmp_path: Path) -> None:
        document = [
            {"video": video, "frame": number, "landmarks": points}
            for number, points in enumerate(POINTS)
            for video in ("a", "b")
        ]
        data, _ = read_all(pose.write(tmp_path / "some.json", document))
        assert (data.names, data.num_bodies) == (["a", "b"], 2)
        np.testing.assert_allclose(clip_of(data, "b")[0], IMAGE[:, 0], rtol=1e-6)

    def test_several_people(self, tmp_path: Path) -> None:
        clip = pose.motion(4, 2, joints=33, channels=3, scale=0.2)
        document = [{"pose_landmarks": [pose.landmarks(points) for points in people]} for people in clip]
        data, notes = read_all(pose.write(tmp_path / "some.json", document))
        np.testing.assert_allclose(np.stack(clip_of(data, "some"), 1), clip, rtol=1e-6)
        assert "no tracks" in notes


class TestOtherTools:
    def test_tensorflow_and_ml_kit(self, tmp_path: Path) -> None:
        """MoveNet's key points have names, pixels and scores; ML Kit's have a type and a position."""
        clip = pose.motion(3)
        order = np.random.default_rng(0).permutation(17)
        named = [
            [
                {
                    "score": 0.9,
                    "keypoints": [
                        {
                            "x": float(people[0, place, 0]),
                            "y": float(people[0, place, 1]),
                            "score": 0.5,
                            "name": pose.COCO_NAMES[place],
                        }
                        for place in order
                    ],
                }
            ]
            for people in clip
        ]
        data, notes = read_all(pose.write(tmp_path / "some.json", named))
        assert (data.layout.name, data.coords.shape[-1]) == ("coco17", 2)
        np.testing.assert_allclose(clip_of(data, "some")[0], clip[:, 0])
        assert "shares" not in notes
        typed = [
            [
                {"type": name, "position": {"x": float(x), "y": float(y)}, "inFrameLikelihood": 0.9}
                for name, (x, y) in zip(pose.COCO_NAMES, people[0], strict=True)
            ]
            for people in clip
        ]
        assert read_all(pose.write(tmp_path / "some.json", typed))[0].coords.equal(data.coords)

    def test_points_with_a_visibility_only(self, tmp_path: Path) -> None:
        points = np.concatenate([IMAGE[:, 0, :, :2], np.full((4, 33, 1), 0.5)], 2)
        data, notes = read_all(pose.write(tmp_path / "some.json", points.tolist()))
        assert data.coords.shape[-1] == 2
        assert "taken as its confidence" in notes

    def test_low_visibility(self, tmp_path: Path) -> None:
        document = [[dict(point) for point in points] for points in POINTS]
        document[1][4]["visibility"] = 0.1
        data, _ = read_all(pose.write(tmp_path / "some.json", document), min_confidence=0.5)
        assert data.valid is not None
        assert np.argwhere(~data.valid.numpy()).tolist() == [[1, 4]]

    def test_hands_are_no_bodies(self, tmp_path: Path) -> None:
        document = [pose.landmarks(people[0]) for people in pose.motion(3, joints=21, channels=3, scale=0.5)]
        with pytest.raises(ValueError, match="21 joints") as error:
            read(pose.write(tmp_path / "some.json", document))
        one_line(error, "some.json", "--layout hand21")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda points: points[:32], "32 joints in 3 channels, most people have 33"),
        (lambda points: [points[0] | {"x": None}, *points[1:]], "joint 0 is at nan"),
        (lambda points: [points[0] | {"x": "a"}, *points[1:]], "no number"),
        (lambda points: [points[0] | {"x": 1e300}, *points[1:]], "joint 0 is at inf"),
        (lambda points: [*points[:32], 3], "no people"),
        (lambda points: "text", "no people"),
    ],
)
def test_a_bad_frame_costs_itself(tmp_path: Path, change: Any, reason: str) -> None:
    document = [{"frame": number, "landmarks": points} for number, points in enumerate(POINTS)]
    document[2]["landmarks"] = change(POINTS[2])
    data, notes = read_all(pose.write(tmp_path / "some.json", document))
    assert "some.json, [2]" in notes
    assert reason in "".join(data.dropped.values())
    assert clip_of(data, "some")[0].any(axis=(1, 2)).tolist() == [True, True, False, True]
