"""COCO-style key points: round trips, choices and unsound entries; which layout a file means."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read
from fastamr.data.readers.common import poses
from fastamr.skeleton import get_layout

from .. import writers_generic as write
from ..reading import clip_of, one_line, person

read_coco = functools.partial(read, kind="coco")


class TestCocoJson:
    def test_round_trip_with_tracks_and_videos(self, tmp_path: Path) -> None:
        """Two videos; in the first a second person comes late, and the first one is lost for a frame."""
        people = {seed: person(seed) for seed in range(9)}
        people[1][5] = [7, 7, 0]
        videos = {
            "walk": {10: {4: people[0]}, 11: {4: people[1], 9: people[2]}, 13: {4: people[3], 9: people[4]}},
            "run": {0: {4: people[5]}},
        }
        path = tmp_path / "some.json"
        path.write_text(json.dumps(write.coco_document(videos, fps=25, label=3)))
        data = read_coco(path)
        assert (data.names, data.labels.tolist(), data.fps.tolist()) == (["walk", "run"], [3, 3], [25, 25])
        assert data.layout is get_layout("coco17")
        assert data.body_clip.tolist() == [0, 0, 1]
        assert data.body_start.tolist() == [0, 1, 0]
        first, second = clip_of(data, "walk")
        np.testing.assert_array_equal(first[[0, 3]], np.stack([people[0], people[3]])[..., :2])
        np.testing.assert_array_equal(first[2], 0)
        np.testing.assert_array_equal(second[[0, 2]], np.stack([people[2], people[4]])[..., :2])
        assert data.valid is not None
        assert data.valid[1].tolist() == [joint != 5 for joint in range(17)]
        assert first[1, 5].tolist() == [0, 0]
        assert read(path).fingerprint() == data.fingerprint()

    def test_the_list_of_alphapose(self, tmp_path: Path) -> None:
        path = tmp_path / "alphapose-results.json"
        poses_ = [(f"{frame}.jpg", person(frame), None) for frame in (2, 0, 1, 3)]
        poses_.insert(1, ("2.jpg", person(20), None))
        write.write_alphapose(path, poses_)
        data = read_coco(path)
        assert data.names == ["alphapose-results"]
        one, two = clip_of(data, "alphapose-results")
        np.testing.assert_array_equal(one, np.stack([person(frame)[:, :2] for frame in range(4)]))
        np.testing.assert_array_equal(two, person(20)[None, :, :2])
        assert data.body_start.tolist() == [0, 2]
        assert data.valid is None

    def test_tracks_of_a_list_in_folders(self, tmp_path: Path) -> None:
        path = tmp_path / "some.json"
        write.write_alphapose(
            path,
            [
                ("b/frame_0010.png", person(1), 7),
                ("a/frame_0004.png", person(2), 7),
                ("a/frame_0004.png", person(3), 5),
                ("a/frame_0005.png", person(4), 5),
            ],
        )
        data = read_coco(path)
        assert data.names == ["b", "a"]
        assert [len(body) for body in clip_of(data, "a")] == [1, 2]
        document = json.loads(path.read_text())
        document[0]["idx"] = [7.0]
        path.write_text(json.dumps(document))
        assert read_coco(path).num_bodies == 3

    def test_confidence_and_people_that_were_not_seen(self, tmp_path: Path) -> None:
        path = tmp_path / "some.json"
        weak, absent = person(1), person(2)
        weak[3, 2], absent[:, 2] = 0.2, 0
        write.write_alphapose(
            path, [("0.jpg", weak, None), ("1.jpg", absent, None), ("v/1.jpg", absent, None)]
        )
        data = read_coco(path, min_confidence=0.3)
        assert (data.num_frames, data.dropped) == (1, {"v": "no body"})
        assert data.valid is not None
        assert (~data.valid).nonzero().tolist() == [[0, 3]]
        assert data.steps[0]["min_confidence"] == 0.3
        assert read_coco(path).valid is None

    def test_joint_names_tell_the_layout_and_the_order(self, tmp_path: Path) -> None:
        joints = list(reversed(get_layout("h36m17").joints))
        videos = {"v": {0: {0: person(0)}}}
        path = tmp_path / "some.json"
        path.write_text(json.dumps(write.coco_document(videos, [name.upper() for name in joints])))
        data = read_coco(path)
        assert data.layout is get_layout("h36m17")
        np.testing.assert_array_equal(data.coords[0].numpy(), person(0)[::-1, :2])
        assert read_coco(path, layout="coco17").layout.name == "coco17"

    def test_images_without_a_video(self, tmp_path: Path) -> None:
        document = write.coco_document({"v": {0: {0: person(0)}, 1: {0: person(1)}}})
        for place, image in enumerate(document["images"]):
            del image["video_id"], image["frame_id"]
            image["file_name"] = f"some/where/img_{place + 7:05d}.jpg"
        path = tmp_path / "some.json"
        path.write_text(json.dumps(document))
        data = read_coco(path)
        assert (data.names, data.offsets.tolist()) == (["some/where"], [0, 2])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.pop("images"), "'images' is missing"),
            (lambda d: d.update(annotations=[]), "no annotations; the data set is empty"),
            (lambda d: d["annotations"][1].pop("keypoints"), r"annotations\[1\]: 'keypoints' is missing"),
            (lambda d: d["annotations"][1].update(keypoints=[1, 2]), "2 numbers in 'keypoints'"),
            (lambda d: d["annotations"][1].update(keypoints=[]), "keypoints"),
            (lambda d: d["annotations"][1].update(keypoints=[1, 2, 2] * 5), "5 joints, the entries before it have 17"),
            (lambda d: d["annotations"][1].update(keypoints=["1", 2, 2] * 17), "something that is no number"),
            (lambda d: d["annotations"][1].update(keypoints=[[1, 2], [3]]), "lists of unequal length"),
            (
                lambda d: d["annotations"][1].update(keypoints=[float("nan"), 2, 2] * 17),
                r"annotations\[1\], joint 0: coordinates are not finite",
            ),
            (lambda d: d["annotations"][1].update(image_id=5), r"annotations\[1\]: image_id .5. is not among"),
            (
                lambda d: d["annotations"][1].update(image_id=1000),
                r"annotations\[1\]: its body is in frame 0 already, see .*annotations\[0\]",
            ),
            (lambda d: d["images"][0].pop("id"), r"images\[0\]: 'id' is missing"),
            (lambda d: d["images"][0].update(id=[1]), r"images\[0\]: 'id' is a list"),
            (lambda d: d["images"][0].update(frame_id="x"), "the frame number is 'x', expected a whole number"),
            (lambda d: d["images"][0].update(frame_id=1e400), "the frame number is 'inf'"),
            (lambda d: d["images"][0].pop("frame_id"), "neither a frame number"),
            (lambda d: d["images"][1].update(frame_id=10**12), r"frame 1000000000000, but the body begins in frame 0"),
            (lambda d: d["videos"][0].update(fps="fast"), r"videos\[0\]: 'id', 'label' or 'fps' is no number"),
            (lambda d: d["annotations"].append(3), r"annotations\[2\]: a int, expected an object"),
            (lambda d: [a.update(keypoints=[0] * 51) for a in d["annotations"]], "no pose of the file has a joint"),
            (lambda d: [a.update(keypoints=[1, 1, 1] * 9) for a in d["annotations"]], "9 joints in 2 channels"),
        ],
    )  # fmt: skip
    def test_unsound_files(self, tmp_path: Path, change: Any, message: str) -> None:
        document = write.coco_document({"v": {0: {0: person(0)}, 1: {0: person(1)}}})
        change(document)
        path = tmp_path / "some.json"
        path.write_text(json.dumps(document))
        with pytest.raises(ValueError, match=message) as error:
            read_coco(path)
        one_line(error, "some.json")

    def test_unsound_lists(self, tmp_path: Path) -> None:
        path = tmp_path / "some.json"
        for image, message in (
            ("photo.jpg", "has no number that tells the frame"),
            (None, "image_id is 'None'"),
        ):
            write.write_alphapose(path, [(image, person(0), None)])  # type: ignore[list-item]
            with pytest.raises(ValueError, match=message) as error:
                read_coco(path)
            one_line(error, "some.json: entry 0")

    def test_far_frames_of_many_bodies_do_not_fill_the_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(poses, "FREE_FRAMES", 10)
        path = tmp_path / "some.json"
        write.write_alphapose(path, [("0.jpg", person(0), 1), ("209.jpg", person(1), 1)])
        assert read_coco(path).num_frames == 210
        write.write_alphapose(path, [("0.jpg", person(0), 1), ("210.jpg", person(1), 1)])
        with pytest.raises(ValueError, match="number the frames of a clip without such gaps"):
            read_coco(path)
