"""Which joint is which, and which frame, in dialects that number, name and wrap them in their own ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read
from fastamr.skeleton import get_layout

from .. import writers_pose as pose
from ..reading import clip_of, one_line
from .helpers import read_all

BLAZE = get_layout("mediapipe33").joints
COCO = get_layout("coco17").joints
KINECT = get_layout("ntu25").joints
IMAGE = pose.motion(5, joints=33, channels=3, scale=0.5)
PIXELS = pose.motion(5)
WORLD = pose.motion(5, joints=25, channels=3, scale=0.5)


def landmarks(frame: int, order: list[int]) -> list[dict[str, Any]]:
    """Return some points of a frame in any order, each with its number."""
    points = pose.landmarks(IMAGE[frame, 0])
    return [{"id": place, **points[place]} for place in order]


def named_points(frame: int, order: list[int]) -> list[dict[str, Any]]:
    return [
        {"x": float(PIXELS[frame, 0, place, 0]), "y": float(PIXELS[frame, 0, place, 1]), "name": COCO[place]}
        for place in order
    ]


def test_numbered_points_in_any_order(tmp_path: Path) -> None:
    frames = [landmarks(frame, np.random.default_rng(frame).permutation(33).tolist()) for frame in range(5)]
    data, notes = read_all(pose.write(tmp_path / "a.json", [{"landmarks": points} for points in frames]))
    assert data.layout.name == "mediapipe33"
    assert "not read" not in notes
    np.testing.assert_allclose(clip_of(data, "a")[0], IMAGE[:, 0], rtol=1e-5)


def test_a_part_of_numbered_points(tmp_path: Path) -> None:
    """The points from the shoulders on are no skeleton of 22 joints, and none of 32 that are counted from 1."""
    frames = [{"landmarks": landmarks(frame, list(range(11, 33)))} for frame in range(5)]
    data, _notes = read_all(pose.write(tmp_path / "a.json", frames))
    assert data.layout.name == "mediapipe33"
    assert data.valid is not None
    assert not data.valid[:, :11].any()
    np.testing.assert_allclose(clip_of(data, "a")[0][:, 11:], IMAGE[:, 0, 11:], rtol=1e-5)


def test_named_points_that_are_not_always_there(tmp_path: Path) -> None:
    frames = [
        [{"keypoints": named_points(frame, [*range(frame), *range(frame + 1, 17)])}] for frame in range(4)
    ]
    data, notes = read_all(pose.write(tmp_path / "a.json", frames))
    assert data.layout.name == "coco17"
    assert "left out" not in notes
    assert data.valid is not None
    assert data.valid.logical_not().nonzero().tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_named_points_in_another_order_in_each_frame(tmp_path: Path) -> None:
    orders = [np.random.default_rng(frame).permutation(17).tolist() for frame in range(5)]
    frames = [[{"keypoints": named_points(frame, order)}] for frame, order in enumerate(orders)]
    data, _notes = read_all(pose.write(tmp_path / "a.json", frames))
    np.testing.assert_allclose(clip_of(data, "a")[0], PIXELS[:, 0], rtol=1e-5)


def test_lists_of_points_named_joints_are_no_scores(tmp_path: Path) -> None:
    """``joints`` are flat in AlphaPose's files; points of three numbers under this name have a depth."""
    points = WORLD[:, 0] - 0.5
    frames = [{"frame": frame, "joints": points[frame].tolist()} for frame in range(5)]
    data, _notes = read_all(pose.write(tmp_path / "a.json", frames), layout="ntu25")
    np.testing.assert_allclose(clip_of(data, "a")[0], points, rtol=1e-5)


def test_visibility_beside_the_points(tmp_path: Path) -> None:
    visible = [0.0] + [0.9] * 32
    frames = [{"landmarks": IMAGE[frame, 0].tolist(), "visibility": visible} for frame in range(5)]
    data, notes = read_all(pose.write(tmp_path / "a.json", frames))
    assert "not read" not in notes
    assert data.valid is not None
    assert not data.valid[:, 0].any()
    assert data.valid[:, 1:].all()


def test_pixels_with_a_share_for_depth(tmp_path: Path) -> None:
    points = IMAGE * np.array([1000, 1000, 1])
    document = [{"landmarks": points[frame, 0].tolist()} for frame in range(5)]
    for frame, entry in enumerate(document):
        entry["landmarks"][0][2] = -0.1 * frame
    _data, notes = read_all(pose.write(tmp_path / "a.json", document))
    assert "bodies are flat" in notes


def test_scores_above_one_are_no_depth(tmp_path: Path) -> None:
    scores = np.linspace(0.4, 1.08, 17)
    frames = [
        [{"keypoints": np.c_[PIXELS[frame, 0], scores].tolist(), "bbox": [0, 0, 9, 9]}] for frame in range(5)
    ]
    data, notes = read_all(pose.write(tmp_path / "a.json", frames))
    assert (data.layout.name, data.coords.shape[-1]) == ("coco17", 2)
    assert "confidence" in notes


class TestKinect:
    """JSON of Kinect's SDK: capital letters, named joints, states in words, six bodies of which few are there."""

    def body(self, frame: int, state: str = "Tracked") -> dict[str, Any]:
        joints = {
            name: {
                "JointType": place,
                "Position": dict(zip("XYZ", WORLD[frame, 0, place].tolist(), strict=True)),
                "TrackingState": state if name == "head" else "Tracked",
            }
            for place, name in enumerate(KINECT)
        }
        return {"TrackingId": 72057, "IsTracked": True, "Joints": joints}

    def test_a_recording(self, tmp_path: Path) -> None:
        frames = [
            {"Timestamp": frame / 30, "Bodies": [self.body(frame), {"IsTracked": False, "TrackingId": 0}]}
            for frame in range(5)
        ]
        data, notes = read_all(pose.write(tmp_path / "a.json", frames))
        assert (data.layout.name, data.body_names) == ("ntu25", ["72057"])
        assert float(data.fps[0]) == pytest.approx(30, rel=1e-3)
        assert "left out" not in notes
        np.testing.assert_allclose(clip_of(data, "a")[0], WORLD[:, 0], rtol=1e-5)

    def test_states(self, tmp_path: Path) -> None:
        frames = [{"Bodies": [self.body(frame, "NotTracked")]} for frame in range(5)]
        data, _notes = read_all(pose.write(tmp_path / "a.json", frames))
        assert data.valid is not None
        assert data.valid.sum(0).tolist() == [0 if name == "head" else 5 for name in KINECT]

    def test_axes_of_the_camera(self, tmp_path: Path) -> None:
        joints = [
            [{f"camera{axis}": value for axis, value in zip("XYZ", point, strict=True)} for point in points]
            for points in WORLD[:, 0].tolist()
        ]
        document = [{"bodies": [{"trackingId": "5", "joints": points}]} for points in joints]
        with pytest.raises(ValueError, match="several layouts") as error:
            read(pose.write(tmp_path / "a.json", document))
        one_line(error, "--layout ntu25")
        data = read(tmp_path / "a.json", layout="ntu25")
        np.testing.assert_allclose(clip_of(data, "a")[0], WORLD[:, 0], rtol=1e-5)


class TestFrames:
    @pytest.mark.parametrize("form", ["list", "object", "lines"])
    def test_frames_that_are_json_in_strings(self, tmp_path: Path, form: str) -> None:
        """``results.to_json()`` of ultralytics returns a text, which people store as it is."""
        texts = [json.dumps([pose.yolo_detection(PIXELS[frame, 0])]) for frame in range(5)]
        path = tmp_path / ("a.jsonl" if form == "lines" else "a.json")
        if form == "lines":
            path.write_text("\n".join(json.dumps(text) for text in texts))
        else:
            pose.write(path, texts if form == "list" else dict(enumerate(texts)))
        np.testing.assert_allclose(clip_of(read(path), "a")[0], PIXELS[:, 0], rtol=1e-5)

    @pytest.mark.parametrize("form", ["columns", "split"])
    def test_tables_of_pandas(self, tmp_path: Path, form: str) -> None:
        """Two people of one image are no two frames."""
        rows = [pose.yolo_detection(points) for points in pose.motion(1, people=2)[0]]
        names = list(rows[0])
        document: dict[str, Any] = {
            name: {str(place): row[name] for place, row in enumerate(rows)} for name in names
        }
        if form == "split":
            document = {"columns": names, "index": [0, 1], "data": [list(row.values()) for row in rows]}
        data, notes = read_all(pose.write(tmp_path / "a.json", document))
        assert (data.num_bodies, data.coords.shape[0]) == (2, 2)
        assert "left out" not in notes

    def test_a_string_that_is_no_json(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no JSON") as error:
            read(pose.write(tmp_path / "a.json", ["[1, 2", "[3]"]))
        one_line(error, str(tmp_path / "a.json"))

    def test_seconds_before_the_frames(self, tmp_path: Path) -> None:
        """``0.2`` comes behind ``0.16``, not before ``0.04``."""
        document = {
            str(frame / 25): pose.landmarks(IMAGE[frame % 5, 0]) for frame in (*range(6, 12), *range(6))
        }
        data, notes = read_all(pose.write(tmp_path / "a.json", document))
        assert float(data.fps[0]) == pytest.approx(25)
        assert "times in seconds" in notes
        np.testing.assert_allclose(clip_of(data, "a")[0], IMAGE[np.arange(12) % 5, 0], rtol=1e-5)

    def test_one_image(self, tmp_path: Path) -> None:
        document = {"image": "portrait.jpg", "landmarks": pose.landmarks(IMAGE[0, 0])}
        data, notes = read_all(pose.write(tmp_path / "a.json", document))
        assert data.coords.shape[0] == 1
        assert "single frame" in notes
        assert "not read" not in notes


class TestUpright:
    """People who stand in no frame: the axes of the file are others."""

    def standing(self) -> np.ndarray:
        points = np.zeros((5, 17, 2))
        points[..., 1] = np.r_[
            np.full(5, 20.0), np.full(2, 50.0), np.full(4, 90.0), 120, 120, 180, 180, 240, 240
        ]
        points[..., 0] = 100 + np.arange(5)[:, None] + 10 * np.array([0, *[1, -1] * 8])
        return points

    def notes(self, tmp_path: Path, points: np.ndarray) -> str:
        frames = [[{"keypoints": np.c_[frame, np.full(17, 0.9)].tolist()}] for frame in points]
        return read_all(pose.write(tmp_path / "a.json", frames))[1]

    def test_they_stand(self, tmp_path: Path) -> None:
        notes = self.notes(tmp_path, self.standing())
        assert "heads are below" not in notes
        assert "on their side" not in notes

    def test_y_grows_upwards(self, tmp_path: Path) -> None:
        notes = self.notes(tmp_path, np.array([0, 300]) + self.standing() * np.array([1, -1]))
        assert "heads are below the legs" in notes
        assert "flip:axes=y" in notes

    def test_y_before_x(self, tmp_path: Path) -> None:
        assert "on their side" in self.notes(tmp_path, self.standing()[..., ::-1])
