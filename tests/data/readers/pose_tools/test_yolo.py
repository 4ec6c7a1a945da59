"""YOLO-pose: texts and JSON of results, with and without tracks, confidences and classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read

from .. import writers_pose as pose
from ..reading import clip_of, one_line
from .helpers import read_all

CLIP = pose.motion(4)
SHARES = np.round(pose.motion(5, 2, scale=0.15), 4)


def write_texts(folder: Path, clip: np.ndarray, *, first: int = 1, **fields: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for frame, people in enumerate(clip, first):
        tracks = fields.pop("tracks", None)
        lines = [
            pose.yolo_line(points, **fields, track=None if tracks is None else tracks[place])
            for place, points in enumerate(people)
        ]
        (folder / f"video_{frame}.txt").write_text("\n".join(lines) + "\n")
        if tracks is not None:
            fields["tracks"] = tracks


class TestTexts:
    @pytest.mark.parametrize("visible", [True, False])
    @pytest.mark.parametrize("score", [None, 0.75])
    @pytest.mark.parametrize("tracks", [None, (1, 2)])
    def test_what_may_stand_on_a_line(
        self, tmp_path: Path, visible: bool, score: float | None, tracks: Any
    ) -> None:
        write_texts(tmp_path / "walk", SHARES, visible=visible, score=score, tracks=tracks)
        data, notes = read_all(tmp_path / "walk")
        assert (data.names, data.layout.name, data.num_bodies) == (["walk"], "coco17", 2)
        np.testing.assert_allclose(np.stack(clip_of(data, "walk"), 1), SHARES, rtol=1e-5)
        assert data.body_names == ([] if tracks is None else ["1", "2"])
        assert ("no tracks" in notes) == (tracks is None)
        assert "shares of the image's width and height" in notes
        assert ("the boxes' confidences" in notes) == (score is not None)

    def test_images_without_a_text_show_nobody(self, tmp_path: Path) -> None:
        write_texts(tmp_path, SHARES[:, :1])
        (tmp_path / "video_3.txt").unlink()
        (tmp_path / "video_5.txt").write_text("\n")
        data, _ = read_all(tmp_path)
        assert clip_of(data, data.names[0])[0].any(axis=(1, 2)).tolist() == [True, True, False, True]

    def test_frames_in_the_order_of_numbers(self, tmp_path: Path) -> None:
        clip = np.round(pose.motion(12, scale=0.15), 4)
        write_texts(tmp_path, clip)
        np.testing.assert_allclose(clip_of(read_all(tmp_path)[0], tmp_path.name)[0], clip[:, 0], rtol=1e-5)

    def test_several_videos(self, tmp_path: Path) -> None:
        write_texts(tmp_path, SHARES[:, :1])
        for path in sorted(tmp_path.glob("video_*.txt")):
            path.with_name(path.name.replace("video", "other")).write_text(path.read_text())
        assert sorted(read_all(tmp_path)[0].names) == ["other", "video"]

    def test_a_person_without_a_track_yet(self, tmp_path: Path) -> None:
        write_texts(tmp_path, SHARES[:, :1], tracks=(4,))
        line = (tmp_path / "video_1.txt").read_text().split()
        (tmp_path / "video_1.txt").write_text(" ".join(line[:-1]) + "\n")
        data, notes = read_all(tmp_path)
        assert sorted(data.body_names) == ["", "4"]
        assert "1 of 5 poses have no track id" in notes

    def test_joints_that_were_not_found(self, tmp_path: Path) -> None:
        clip = SHARES[:, :1].copy()
        clip[:, :, 3] = 0
        write_texts(tmp_path, clip, visible=False)
        data, _ = read_all(tmp_path)
        assert data.valid is not None
        assert not data.valid[:, 3].any()
        assert data.valid[:, 4].all()

    def test_a_text_of_one_frame(self, tmp_path: Path) -> None:
        write_texts(tmp_path, SHARES[:1])
        data, _ = read_all(tmp_path / "video_1.txt")
        assert (data.names, data.num_bodies, data.num_frames) == (["video_1"], 2, 2)

    def test_other_skeletons(self, tmp_path: Path) -> None:
        write_texts(tmp_path / "a", np.round(pose.motion(3, joints=26, scale=0.15), 4))
        data, _notes = read_all(tmp_path / "a", layout="halpe26")
        assert data.layout.name == "halpe26"
        for joints in (26, 24, 11):
            write_texts(tmp_path / str(joints), np.round(pose.motion(3, joints=joints, scale=0.15), 4))
            with pytest.raises(ValueError, match=f"{joints} key points, but YOLO-pose models") as error:
                read(tmp_path / str(joints))
            one_line(error, str(tmp_path / str(joints)), "--layout")

    def test_numbers_that_may_be_several_skeletons(self, tmp_path: Path) -> None:
        """11 joints of x, y, v are as many numbers as 16 joints of x, y and a confidence; boxes would tell."""
        write_texts(tmp_path, np.round(pose.motion(3, joints=11, scale=0.15), 4))
        for path in tmp_path.glob("*.txt"):
            words = path.read_text().split()
            path.write_text(" ".join([*words[:1], "0.5", "0.5", "1", "1", *words[5:]]))
        with pytest.raises(ValueError, match="11 joints of 3 or 16 joints of 2") as error:
            read(tmp_path)
        one_line(error, "38 numbers a line", "--layout")
        assert read(tmp_path, layout="mpii16").layout.name == "mpii16"

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda words: [*words, "1", "1", "1"], "59 numbers, most lines have 56"),
            (lambda words: ["x", *words[1:]], "no number"),
            (lambda words: [*words[:5], "nan", *words[6:]], "joint 0 is at nan"),
            (lambda words: [*words[:5], "1e300", *words[6:]], "joint 0 is at inf"),
            (lambda words: words[:30], "30 numbers, most lines have 56"),
        ],
    )
    def test_a_bad_line_costs_itself(
        self, tmp_path: Path, change: Callable[[list[str]], list[str]], reason: str
    ) -> None:
        write_texts(tmp_path, SHARES)
        path = tmp_path / "video_2.txt"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], " ".join(change(lines[1].split()))]))
        data, notes = read_all(tmp_path)
        assert [("video_2.txt, line 2" in key, reason in why) for key, why in data.dropped.items()] == [
            (True, True)
        ]
        assert data.num_bodies == 2
        assert "video_2.txt, line 2" in notes

    def test_other_texts_and_images_beside(self, tmp_path: Path) -> None:
        write_texts(tmp_path, SHARES)
        (tmp_path / "classes.txt").write_text("person\n")
        (tmp_path / "video_1.png").write_bytes(b"png")
        (tmp_path / "video_9.txt").write_bytes(b"\xff\xfe\x00")
        data, notes = read_all(tmp_path)
        assert data.num_bodies == 2
        assert "video_1.png" in notes
        assert sum("classes.txt" in key for key in data.dropped) == 1
        assert "is no text in UTF-8" in "".join(data.dropped.values())

    def test_folders_of_other_texts_are_not_taken(self, tmp_path: Path) -> None:
        for number in range(4):
            (tmp_path / f"{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
        with pytest.raises(ValueError, match="folder"):
            read(tmp_path)

    def test_classes_are_said(self, tmp_path: Path) -> None:
        write_texts(tmp_path, SHARES)
        text = (tmp_path / "video_2.txt").read_text()
        (tmp_path / "video_2.txt").write_text("1" + text[1:])
        assert "classes 0 (9 times), 1 (1 times) are all read as people" in read_all(tmp_path)[1]


def frames(clip: np.ndarray, *, tracked: bool = True) -> list[list[dict[str, Any]]]:
    return [
        [pose.yolo_detection(points, place + 1 if tracked else None) for place, points in enumerate(people)]
        for people in clip
    ]


FORMS: dict[str, Callable[[Path], Path]] = {
    "list of frames": lambda folder: pose.write(folder / "a.json", frames(CLIP)),
    "a frame a line": lambda folder: pose.write_lines(folder / "a.jsonl", frames(CLIP)),
    "a frame a line in .json": lambda folder: pose.write_lines(folder / "a.json", frames(CLIP)),
    "objects of frames": lambda folder: pose.write(
        folder / "a.json",
        [{"frame": number, "detections": people} for number, people in enumerate(frames(CLIP))],
    ),
    "an object a line": lambda folder: pose.write_lines(
        folder / "a.jsonl",
        [{"frame": number, "results": people} for number, people in enumerate(frames(CLIP))],
    ),
    "images": lambda folder: pose.write(
        folder / "a.json", {"images": [{"results": people} for people in frames(CLIP)]}
    ),
    "by number": lambda folder: pose.write(
        folder / "a.json", {str(number): people for number, people in enumerate(frames(CLIP))}
    ),
    "rows with a frame": lambda folder: pose.write(
        folder / "a.json",
        [entry | {"frame": number} for number, people in enumerate(frames(CLIP)) for entry in people],
    ),
}


class TestJson:
    @pytest.mark.parametrize("form", FORMS)
    def test_all_forms_are_one_clip(self, tmp_path: Path, form: str) -> None:
        data, notes = read_all(FORMS[form](tmp_path))
        assert (data.names, data.layout.name, data.body_names) == (["a"], "coco17", ["1"])
        np.testing.assert_allclose(clip_of(data, "a")[0], CLIP[:, 0])
        assert "not read: class, confidence, box" in notes

    def test_a_folder_with_a_file_a_frame(self, tmp_path: Path) -> None:
        for number, people in enumerate(frames(CLIP)):
            pose.write(tmp_path / "walk" / f"walk_{number}.json", people)
        data, _ = read_all(tmp_path / "walk")
        np.testing.assert_allclose(clip_of(data, "walk")[0], CLIP[:, 0])

    def test_frames_with_nobody(self, tmp_path: Path) -> None:
        document = frames(CLIP)
        document[1] = []
        data, _ = read_all(pose.write(tmp_path / "a.json", document))
        assert clip_of(data, "a")[0].any(axis=(1, 2)).tolist() == [True, False, True, True]

    def test_other_objects(self, tmp_path: Path) -> None:
        document = frames(pose.motion(4, 2))
        for people in document:
            people[1]["name"] = "dog"
        data, notes = read_all(pose.write(tmp_path / "a.json", document))
        assert data.num_bodies == 1
        assert "an object named 'dog', no person" in notes
        for people in document:
            people[0]["name"] = "worker"
        data, notes = read_all(pose.write(tmp_path / "a.json", document))
        assert data.num_bodies == 2
        assert "no object is named 'person'; those named dog, worker are read as people" in notes

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"x": [1.0] * 16}, "differ in length"),
            ({"x": ["1"] * 17}, "no number"),
            ({"x": [None] * 17}, "joint 0 is at nan"),
            ({"visible": [1.0] * 3}, "differ in length"),
        ],
    )
    def test_bad_columns_cost_themselves(self, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
        document = frames(CLIP)
        document[2][0]["keypoints"] |= change
        data, notes = read_all(pose.write(tmp_path / "a.json", document))
        assert "a.json, [2], person 0" in notes
        assert reason in "".join(data.dropped.values())

    def test_columns_without_visibility(self, tmp_path: Path) -> None:
        document = frames(CLIP)
        for people in document:
            people[0]["keypoints"]["visible"] = None
        document[1][0]["keypoints"]["x"][3] = None
        data, _ = read_all(pose.write(tmp_path / "a.json", document))
        assert data.valid is not None
        assert np.argwhere(~data.valid.numpy()).tolist() == [[1, 3]]

    def test_a_broken_line_is_named(self, tmp_path: Path) -> None:
        path = pose.write_lines(tmp_path / "a.jsonl", frames(CLIP))
        path.write_text(path.read_text()[:-9])
        with pytest.raises(ValueError, match=r"a\.jsonl, line 4: no JSON") as error:
            read(path)
        one_line(error)
