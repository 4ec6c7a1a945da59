"""OpenPose: a file a frame, documents of frames, tracks, and files that are not sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read

from .. import writers_pose as pose
from ..reading import clip_of, one_line
from .helpers import read_all


class TestFolder:
    def test_a_folder_is_a_clip(self, tmp_path: Path) -> None:
        clip = pose.motion(5, joints=25)
        pose.write_openpose(tmp_path / "walk", clip, first=7)
        data, notes = read_all(tmp_path / "walk")
        assert (data.names, data.layout.name, data.num_bodies) == (["walk"], "openpose25", 1)
        np.testing.assert_array_equal(clip_of(data, "walk")[0], clip[:, 0])
        assert "25 joints without names are taken as layout openpose25" in notes
        assert "no track" not in notes
        assert data.body_names == []

    def test_nobody_at_the_beginning_in_the_middle_and_at_the_end(self, tmp_path: Path) -> None:
        clip = pose.motion(6, joints=18)
        pose.write_openpose(tmp_path, clip)
        for frame in (0, 3, 5):
            pose.write(tmp_path / f"video_{frame:012d}_keypoints.json", {"version": 1.3, "people": []})
        data, _ = read_all(tmp_path)
        (body,) = clip_of(data, data.names[0])
        assert data.layout.name == "openpose18"
        np.testing.assert_array_equal(body[[0, 1, 3]], clip[[1, 2, 4], 0])
        assert not body[2].any()

    def test_joints_of_confidence_0_are_not_seen(self, tmp_path: Path) -> None:
        frame = pose.openpose_frame(pose.motion(1, joints=25)[0])
        frame["people"][0]["pose_keypoints_2d"][-3:] = [0, 0, 0]
        frame["people"][0]["pose_keypoints_2d"][2] = 0.1
        pose.write(tmp_path / "a_000000000001_keypoints.json", frame)
        for minimum, unseen in ((None, 1), (0.2, 2)):
            data, _ = read_all(tmp_path, min_confidence=minimum)
            assert data.valid is not None
            assert int((~data.valid).sum()) == unseen

    def test_several_videos_of_a_folder_are_a_clip_each(self, tmp_path: Path) -> None:
        one, other = pose.motion(4, joints=25), pose.motion(3, joints=25) + 7
        pose.write_openpose(tmp_path, one, "walk")
        pose.write_openpose(tmp_path, other, "run")
        data, _ = read_all(tmp_path)
        assert sorted(data.names) == ["run", "walk"]
        np.testing.assert_array_equal(clip_of(data, "run")[0], other[:, 0])

    def test_a_zip_archive(self, tmp_path: Path) -> None:
        import zipfile

        clip = pose.motion(4, joints=25)
        pose.write_openpose(tmp_path / "a", clip)
        pose.write_openpose(tmp_path / "b", clip + 1)
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for path in sorted(tmp_path.glob("?/*.json")):
                archive.write(path, path.relative_to(tmp_path))
        data, _ = read_all(tmp_path / "all.zip")
        assert data.names == ["a", "b"]

    def test_ids_are_bodies_whatever_their_order(self, tmp_path: Path) -> None:
        clip = pose.motion(4, 2, joints=25)
        for frame, people in enumerate(clip):
            order = [0, 1] if frame % 2 else [1, 0]
            document = pose.openpose_frame(people[order], ids=[(4, 9)[place] for place in order])
            pose.write(tmp_path / f"v_{frame:012d}_keypoints.json", document)
        data, notes = read_all(tmp_path, track=False)
        assert sorted(data.body_names) == ["4", "9"]
        for name, body in zip(data.body_names, clip_of(data, data.names[0]), strict=True):
            np.testing.assert_array_equal(body, clip[:, ("4", "9").index(name)])
        assert "tracks" not in notes

    def test_people_without_ids_are_linked_and_it_is_said(self, tmp_path: Path) -> None:
        clip = pose.motion(6, 2, joints=25)
        for frame, people in enumerate(clip):
            document = pose.openpose_frame(people[::-1] if frame % 2 else people)
            pose.write(tmp_path / f"v_{frame:012d}_keypoints.json", document)
        data, notes = read_all(tmp_path)
        bodies = clip_of(data, data.names[0])
        assert len(bodies) == 2
        np.testing.assert_array_equal(np.stack(bodies, 1), clip)
        assert "the file tells no tracks" in notes
        with pytest.raises(ValueError, match="--no-track") as error:
            read(tmp_path, track=False)
        one_line(error, str(tmp_path))

    def test_an_id_of_two_people_is_not_used(self, tmp_path: Path) -> None:
        clip = pose.motion(4, 2, joints=25)
        pose.write_openpose(tmp_path, clip, ids=[0, 0])
        data, notes = read_all(tmp_path)
        assert data.num_bodies == 2
        assert "several people of an image share the track id 0, which is taken as none" in notes
        assert "the file tells no tracks" in notes

    def test_hands_and_faces_are_named(self, tmp_path: Path) -> None:
        pose.write_openpose(
            tmp_path, pose.motion(2, joints=25), face_keypoints_2d=[1.0, 2, 1], hand_left_keypoints_2d=[]
        )
        _, notes = read_all(tmp_path)
        assert "not read: face_keypoints_2d" in notes
        assert "hand_left" not in notes

    def test_what_lies_beside_the_frames_is_named(self, tmp_path: Path) -> None:
        pose.write_openpose(tmp_path, pose.motion(2, joints=25))
        (tmp_path / "a.png").write_bytes(b"png")
        (tmp_path / "below").mkdir()
        (tmp_path / ".hidden").write_text("")
        _, notes = read_all(tmp_path)
        assert "2 other entries of the folder are not read: a.png, below/" in notes


class TestDocuments:
    @pytest.mark.parametrize(
        "wrap", [list, lambda frames: {"frames": frames}, lambda frames: {"data": frames}]
    )
    def test_a_list_of_frames(self, tmp_path: Path, wrap: Any) -> None:
        clip = pose.motion(3, joints=25)
        path = pose.write(tmp_path / "some.json", wrap([pose.openpose_frame(people) for people in clip]))
        data, _ = read_all(path)
        assert data.names == ["some"]
        np.testing.assert_array_equal(clip_of(data, "some")[0], clip[:, 0])

    def test_a_frame(self, tmp_path: Path) -> None:
        path = pose.write(tmp_path / "some.json", pose.openpose_frame(pose.motion(1, joints=25)[0]))
        assert read_all(path)[0].num_frames == 1

    def test_frames_by_the_names_of_images(self, tmp_path: Path) -> None:
        """``alphapose-results.json`` of AlphaPose's formats ``open`` and ``cmu``."""
        clip = pose.motion(3, joints=18)
        frames = {f"{frame}.jpg": pose.openpose_frame(clip[frame]) for frame in (2, 0, 1)}
        data, _ = read_all(pose.write(tmp_path / "open.json", frames))
        np.testing.assert_array_equal(clip_of(data, "open")[0], clip[:, 0])
        bodies = {
            name: {
                "version": "AlphaPose v0.3",
                "bodies": [{"joints": frame["people"][0]["pose_keypoints_2d"]}],
            }
            for name, frame in frames.items()
        }
        assert read_all(pose.write(tmp_path / "cmu.json", bodies))[0].coords.equal(data.coords)
        folder = tmp_path / "sep-json"
        for name, frame in bodies.items():
            pose.write(folder / name.replace("jpg", "json"), frame)
        assert read_all(folder)[0].coords.equal(data.coords)

    def test_joints_in_space(self, tmp_path: Path) -> None:
        clip = pose.motion(2, joints=25, channels=3)
        frames = [pose.openpose_frame(people) for people in clip]
        for frame in frames:
            frame["people"][0]["pose_keypoints_2d"] = pose.flat(clip[0, 0, :, :2])
        data, notes = read_all(pose.write(tmp_path / "some.json", frames))
        np.testing.assert_array_equal(clip_of(data, "some")[0], clip[:, 0])
        assert "not read: pose_keypoints_2d" in notes
        assert "unit" in notes

    @pytest.mark.parametrize(("joints", "layout"), [(15, "openpose15"), (17, "coco17"), (26, "halpe26")])
    def test_other_numbers_of_joints(self, tmp_path: Path, joints: int, layout: str) -> None:
        frames = [pose.openpose_frame(people) for people in pose.motion(2, joints=joints)]
        data, notes = read_all(pose.write(tmp_path / "some.json", frames))
        assert data.layout.name == layout
        assert "layout" in notes

    def test_a_number_of_joints_that_no_skeleton_has(self, tmp_path: Path) -> None:
        path = pose.write(tmp_path / "some.json", [pose.openpose_frame(pose.motion(1, joints=11)[0])])
        with pytest.raises(ValueError, match="11 joints") as error:
            read(path)
        one_line(error, "some.json", "--layout")

    def test_shares_of_the_image_are_said(self, tmp_path: Path) -> None:
        path = pose.write(
            tmp_path / "some.json", [pose.openpose_frame(pose.motion(1, joints=25, scale=0.5)[0])]
        )
        assert "x and y are shares of the image's width and height" in read_all(path)[1]


DEFECTS: dict[str, tuple[Any, str]] = {
    "76 numbers": (lambda keypoints: [*keypoints, 1.0], "76 numbers, expected 3 for each joint"),
    "18 joints": (lambda keypoints: keypoints[:54], "18 joints in 2 channels, most people have 25 in 2"),
    "NaN": (lambda keypoints: [float("nan"), *keypoints[1:]], "joint 0 is at nan"),
    "null": (lambda keypoints: [None, *keypoints[1:]], "joint 0 is at nan"),
    "text": (lambda keypoints: ["x", *keypoints[1:]], "something that is no number"),
    "huge": (lambda keypoints: [1e300, *keypoints[1:]], "joint 0 is at inf"),
    "far": (lambda keypoints: [1e9, *keypoints[1:]], "joint 0 is at 1e+09"),
}


class TestDefects:
    @pytest.mark.parametrize("defect", DEFECTS)
    @pytest.mark.parametrize("as_folder", [True, False])
    def test_a_bad_person_costs_itself(self, tmp_path: Path, defect: str, as_folder: bool) -> None:
        change, reason = DEFECTS[defect]
        clip = pose.motion(4, joints=25)
        frames = [pose.openpose_frame(people) for people in clip]
        person = frames[2]["people"][0]
        person["pose_keypoints_2d"] = change(person["pose_keypoints_2d"])
        if as_folder:
            for number, frame in enumerate(frames):
                pose.write(tmp_path / "in" / f"v_{number:012d}_keypoints.json", frame)
            path, place = tmp_path / "in", "v_000000000002_keypoints.json, person 0"
        else:
            path, place = pose.write(tmp_path / "some.json", frames), "some.json, [2], person 0"
        data, notes = read_all(path)
        (body,) = clip_of(data, data.names[0])
        np.testing.assert_array_equal(body[[0, 1, 3]], clip[[0, 1, 3], 0])
        assert not body[2].any()
        assert [(key.endswith(place), reason in why) for key, why in data.dropped.items()] == [(True, True)]
        assert f"{place}: " in notes

    @pytest.mark.parametrize("content", [b"", b"{", b'{"people": 3}', b"\xff\xfe{}", b'{"other": 1}', b"3"])
    def test_a_bad_file_costs_itself(self, tmp_path: Path, content: bytes) -> None:
        clip = pose.motion(4, joints=25)
        pose.write_openpose(tmp_path, clip)
        (tmp_path / "video_000000000002_keypoints.json").write_bytes(content)
        data, notes = read_all(tmp_path)
        (body,) = clip_of(data, data.names[0])
        np.testing.assert_array_equal(body[[0, 1, 3]], clip[[0, 1, 3], 0])
        assert "video_000000000002_keypoints.json" in "".join(data.dropped)
        assert "left out because of what is in them: 1" in notes

    def test_nothing_can_be_read(self, tmp_path: Path) -> None:
        frame = pose.openpose_frame(pose.motion(1, joints=25)[0])
        frame["people"][0]["pose_keypoints_2d"].append(1)
        path = pose.write(tmp_path / "some.json", [frame])
        with pytest.raises(ValueError, match="nobody can be read") as error:
            read(path)
        one_line(error, "some.json, [0], person 0", "76 numbers")
        pose.write(path, {"people": []})
        with pytest.raises(ValueError, match="nobody was seen in any frame") as error:
            read(path)
        one_line(error, "some.json")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="folder"):
            read(tmp_path)
        for kind in ("openpose", "yolo-txt"):
            with pytest.raises(ValueError, match="data set is empty") as error:
                read(tmp_path, kind=kind)
            one_line(error, str(tmp_path))

    def test_frames_that_lie_far_apart_are_no_motion(self, tmp_path: Path) -> None:
        for frame in (0, 1, 100000):
            document = pose.openpose_frame(pose.motion(1, joints=25)[0])
            pose.write(tmp_path / f"v_{frame:012d}_keypoints.json", document)
        with pytest.raises(ValueError, match="no motion"):
            read(tmp_path)

    def test_the_layout_that_was_asked_for_must_fit(self, tmp_path: Path) -> None:
        path = pose.write(tmp_path / "some.json", [pose.openpose_frame(pose.motion(1, joints=25)[0])])
        assert read(path, layout="ntu25").layout.name == "ntu25"
        with pytest.raises(ValueError, match="25 joints, but layout 'coco17' has 17"):
            read(path, layout="coco17")

    def test_prepare_tells_what_was_left_out(self, tmp_path: Path) -> None:
        from fastamr.data.prepare import prepare

        pose.write_openpose(tmp_path / "in", pose.motion(4, joints=25))
        (tmp_path / "in" / "video_000000000001_keypoints.json").write_text("{")
        report = prepare("openpose", tmp_path / "in", tmp_path / "out.safetensors")
        assert (report.files, len(report.damaged)) == (4, 1)
        assert json.loads((tmp_path / "out.report.json").read_text())["notes"]
