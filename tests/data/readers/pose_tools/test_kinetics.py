"""Kinetics-Skeleton: clips, folders of them, labels and halves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read

from .. import writers_pose as pose
from ..reading import clip_of, one_line
from .helpers import read_all


def motion(frames: int = 4, people: int = 1) -> np.ndarray:
    return pose.motion(frames, people, joints=18, scale=0.15)


class TestClip:
    def test_a_clip(self, tmp_path: Path) -> None:
        path = pose.write(tmp_path / "x7Gk.json", pose.kinetics_document(motion(), "waving", 5))
        data, notes = read_all(path)
        assert (data.names, data.layout.name, data.label_names) == (["x7Gk"], "openpose18", ("waving",))
        assert data.labels.tolist() == [0]
        np.testing.assert_array_equal(clip_of(data, "x7Gk")[0], motion()[:, 0])
        assert "shares of the image's width and height" in notes

    def test_frames_keep_their_numbers(self, tmp_path: Path) -> None:
        document = pose.kinetics_document(motion(6))
        document["data"][2]["skeleton"] = []
        del document["data"][3]
        data, _ = read_all(pose.write(tmp_path / "a.json", document))
        (body,) = clip_of(data, "a")
        assert body.any(axis=(1, 2)).tolist() == [True, True, False, False, True, True]

    def test_people_are_linked(self, tmp_path: Path) -> None:
        document = pose.kinetics_document(motion(5, 2))
        for frame in document["data"][1::2]:
            frame["skeleton"].reverse()
        path = pose.write(tmp_path / "a.json", document)
        data, notes = read_all(path)
        np.testing.assert_array_equal(np.stack(clip_of(data, "a"), 1), motion(5, 2))
        assert "no tracks" in notes
        with pytest.raises(ValueError, match="--no-track"):
            read(path, track=False)

    @pytest.mark.parametrize(
        "fields", [{"label": None, "label_index": -1}, {"label": "", "label_index": None}]
    )
    def test_no_label(self, tmp_path: Path, fields: dict[str, Any]) -> None:
        path = pose.write(tmp_path / "a.json", pose.kinetics_document(motion()) | fields)
        assert read_all(path)[0].labels.tolist() == [-1]

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"pose": [0.1] * 35}, "35 numbers, expected 2 for each joint"),
            ({"score": [0.5] * 17}, "17 scores for 18 joints"),
            ({"pose": [float("nan")] * 36}, "joint 0 is at nan"),
            ({"pose": ["a"] * 36}, "no number"),
        ],
    )
    def test_a_bad_person_costs_itself(self, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
        document = pose.kinetics_document(motion())
        document["data"][1]["skeleton"][0] |= change
        path = pose.write(tmp_path / "a.json", document)
        data, notes = read_all(path)
        assert reason in "".join(data.dropped.values())
        assert "a.json, data[1], person 0" in notes
        assert clip_of(data, "a")[0].any(axis=(1, 2)).tolist() == [True, False, True, True]
        pose.write(path, {**document, "data": document["data"][1:2]})
        with pytest.raises(ValueError, match="nobody can be read") as error:
            read(path)
        one_line(error, "a.json")


class TestFolder:
    def test_clips_labels_and_a_damaged_file(self, tmp_path: Path) -> None:
        pose.write(tmp_path / "b.json", pose.kinetics_document(motion(), "waving", 2))
        pose.write(tmp_path / "a.json", pose.kinetics_document(motion(), "abseiling", 0))
        pose.write(tmp_path / "c.json", {"data": [], "label": "waving", "label_index": 2})
        (tmp_path / "d.json").write_text("{")
        pose.write(tmp_path / "e.json", {"other": 1})
        data, notes = read_all(tmp_path)
        assert data.names == ["a", "b"]
        assert (data.label_names, data.labels.tolist()) == (("abseiling", "waving"), [0, 1])
        assert data.dropped["c"] == "no body"
        assert sum("d.json" in key or "e.json" in key for key in data.dropped) == 2
        assert "left out because of what is in them: 2" in notes

    def test_the_halves_are_the_split(self, tmp_path: Path) -> None:
        """As ST-GCN's download: a folder and a label file for each half."""
        for half, names in (("train", ["a", "b"]), ("val", ["c"])):
            labels = {}
            for place, name in enumerate(names):
                document = pose.kinetics_document(motion(), "class 1", 1) | {
                    "label": None,
                    "label_index": None,
                }
                pose.write(tmp_path / f"kinetics_{half}" / f"{name}.json", document)
                labels[name] = {"has_skeleton": True, "label": f"class {place}", "label_index": place}
            pose.write(tmp_path / f"kinetics_{half}_label.json", labels)
        data, _ = read_all(tmp_path)
        assert (data.names, data.labels.tolist()) == (["a", "b", "c"], [0, 1, 0])
        assert data.label_names == ("class 0", "class 1")
        assert data.split("official").train.tolist() == [True, True, False]
        assert data.split("official").test.tolist() == [False, False, True]

    def test_labels_without_an_index_and_numbers_without_a_name(self, tmp_path: Path) -> None:
        for name, label, index in (("a", "x", None), ("b", "w", None), ("c", "x", None)):
            pose.write(
                tmp_path / "words" / f"{name}.json",
                pose.kinetics_document(motion(), label) | {"label_index": index},
            )
            pose.write(
                tmp_path / "numbers" / f"{name}.json",
                pose.kinetics_document(motion()) | {"label": None, "label_index": 4},
            )
        assert read_all(tmp_path / "words")[0].labels.tolist() == [0, 1, 0]
        numbers, _ = read_all(tmp_path / "numbers")
        assert (numbers.labels.tolist(), numbers.label_names) == ([4, 4, 4], ())
