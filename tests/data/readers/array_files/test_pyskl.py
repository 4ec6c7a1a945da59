"""PYSKL's annotation files: round trips, choices and unsound entries."""

from __future__ import annotations

import functools
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastamr.data import load, read
from fastamr.data.prepare import prepare
from fastamr.skeleton import get_layout

from .. import writers_generic as write
from ..reading import clip_of, one_line

read_pyskl = functools.partial(read, kind="pyskl")

RNG = np.random.default_rng(0)


class TestPyskl:
    @pytest.fixture
    def annotations(self) -> list[dict[str, Any]]:
        """Three clips in 2-D with scores; the second has two people, of whom one is never there."""
        found = []
        for place, (bodies, frames) in enumerate(((1, 5), (2, 4), (2, 3))):
            keypoint = RNG.uniform(1, 100, size=(bodies, frames, 17, 2)).astype(np.float16)
            score = RNG.uniform(0.1, 1, size=(bodies, frames, 17)).astype(np.float16)
            score[0, 1, 3] = 0
            found.append(
                write.pyskl_annotation(
                    f"v{place}", keypoint, place, keypoint_score=score, img_shape=(480, 640 + place)
                )
            )
        found[1]["keypoint"][1] = 0
        return found

    @pytest.mark.parametrize("protocol", [2, 4, 5])
    def test_round_trip_in_2d(self, tmp_path: Path, annotations: list[dict[str, Any]], protocol: int) -> None:
        path = tmp_path / "some.pkl"
        write.write_pyskl(path, annotations, {"train": ["v0", "v2"], "val": ["v1"]}, protocol)
        data = read_pyskl(path)
        assert data.layout is get_layout("coco17")
        assert (data.names, data.labels.tolist()) == (["v0", "v1", "v2"], [0, 1, 2])
        assert data.body_clip.tolist() == [0, 1, 2, 2]
        assert {name: column.tolist() for name, column in data.columns.items()} == {
            "image_height": [480, 480, 480],
            "image_width": [640, 641, 642],
        }
        assert data.splits["official"].train.tolist() == [True, False, True]
        assert data.splits["official"].test.tolist() == [False, True, False]
        (body,) = clip_of(data, "v0")
        expected = annotations[0]["keypoint"][0].astype(np.float32)
        expected[1, 3] = 0
        np.testing.assert_array_equal(body, expected)
        assert data.valid is not None
        unseen = (~data.valid).nonzero().tolist()
        assert unseen == [[1, 3], [6, 3], [10, 3]]
        assert data.steps == (
            {"name": "note", "about": "validity", "source": "confidence", "min_confidence": 0.0},
        )
        assert read(path).fingerprint() == data.fingerprint()

    def test_confidence(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        write.write_pyskl(tmp_path / "some.pkl", annotations, None)
        data = read_pyskl(tmp_path / "some.pkl", min_confidence=0.5)
        assert data.valid is not None
        assert torch.equal(data.valid[:5], torch.from_numpy(annotations[0]["keypoint_score"][0] >= 0.5))
        assert (data.coords[~data.valid] == 0).all()
        assert data.splits == {}
        with pytest.raises(ValueError, match="min_confidence is -1"):
            read_pyskl(tmp_path / "some.pkl", min_confidence=-1)

    def test_3d_with_the_published_split_names(self, tmp_path: Path) -> None:
        names = [f"S001C00{camera}P00{person}R001A013" for camera in (1, 2) for person in (1, 3)]
        points = [RNG.normal(size=(1, 3, 25, 3)).astype(np.float32) for _ in names]
        annotations = [write.pyskl_annotation(name, x, 12) for name, x in zip(names, points, strict=True)]
        split = {
            "xsub_train": [names[0], names[2]],
            "xsub_val": [names[1], names[3], "S001C001P001R001A099"],
            "xview_train": names[2:],
            "xview_val": names[:2],
        }
        write.write_pyskl(tmp_path / "ntu.pkl", annotations, split)
        data = read_pyskl(tmp_path / "ntu.pkl")
        assert data.layout is get_layout("ntu25")
        assert data.valid is None
        assert list(data.splits) == ["xsub", "xview"]
        assert data.splits["xsub"].train.tolist() == [True, False, True, False]
        assert data.splits["xview"].test.tolist() == [True, True, False, False]
        assert data.dropped == {
            "S001C001P001R001A099": "named in split xsub_val, but not among the annotations"
        }
        assert data.columns["view"].tolist() == [1, 1, 2, 2]
        assert data.columns["subject"].tolist() == [1, 3, 1, 3]
        np.testing.assert_array_equal(clip_of(data, names[2])[0], points[2][0])

    def test_three_halves_numbered_splits_and_other_names(
        self, tmp_path: Path, annotations: list[dict[str, Any]]
    ) -> None:
        split = {"train1": ["v0"], "test1": ["v1"], "test2": ["v2"], "train2": ["v0"], "few": ["v2"]}
        split |= {"sub_train": ["v0"], "sub_val": ["v1"], "sub_test": ["v2"]}
        write.write_pyskl(tmp_path / "some.pkl", annotations, split)
        splits = read_pyskl(tmp_path / "some.pkl").splits
        found = {name: (part.train.tolist(), part.test.tolist()) for name, part in splits.items()}
        one, two, three, none = np.eye(4, 3).astype(bool).tolist()
        assert found == {
            "official1": (one, two),
            "official2": (one, three),
            "few": (three, none),
            "sub": (one, three),
            "sub_val": (one, two),
        }

    def test_a_clip_without_a_person_is_dropped_and_listed(
        self, tmp_path: Path, annotations: list[dict[str, Any]]
    ) -> None:
        annotations[0]["keypoint"] = np.zeros((0, 5, 17, 2), dtype=np.float32)
        annotations[0]["keypoint_score"] = np.zeros((0, 5, 17), dtype=np.float32)
        write.write_pyskl(tmp_path / "some.pkl", annotations, None)
        data = read_pyskl(tmp_path / "some.pkl")
        assert (data.names, data.dropped) == (["v1", "v2"], {"v0": "no body"})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"keypoint": None}, r"'keypoint' is no array of numbers"),
            ({"keypoint": np.array(["a"])}, "is no array of numbers"),
            ({"keypoint": [[[1, 2], [3]]]}, "'keypoint' holds lists of unequal length"),
            ({"keypoint": np.zeros((4, 17))}, r"shape \(4, 17\), expected \(bodies, frames, joints"),
            ({"keypoint": np.zeros((1, 4, 17, 5))}, "expected .bodies, frames, joints, 2 or 3."),
            (
                {"keypoint": np.full((1, 4, 17, 2), np.inf)},
                "body 0, frame 0, joint 0: coordinates are not finite",
            ),
            ({"total_frames": 7}, "'total_frames' is 7, but 'keypoint' has 4 frames"),
            ({"keypoint_score": np.zeros((1, 4, 17))}, "'keypoint_score' is no array"),
            ({"total_frames": ((4,),)}, "'total_frames' is a tuple, but"),
            ({"frame_dir": (("v",),)}, "'frame_dir' is a tuple, expected a name"),
            ({"label": "run"}, "'label' is 'run', most others have int"),
            ({"label": -5}, "'label' is -5, no class index; number the classes from 0"),
            ({"label": 1.5}, "'label' is 1.5, no class index"),
            ({"label": [1, 2]}, "'label' is a list, no class index"),
            (
                {"keypoint": np.zeros((2, 4, 25, 2)), "keypoint_score": None},
                r"joints and channels are \(25, 2\), most others have \(17, 2\)",
            ),
        ],
    )
    def test_an_unsound_annotation_costs_itself(
        self, tmp_path: Path, annotations: list[dict[str, Any]], changes: dict[str, Any], message: str
    ) -> None:
        path, notes = tmp_path / "some.pkl", []
        annotations[1] |= changes
        write.write_pyskl(path, annotations, {"train": ["v0", "v1"], "test": ["v2"]})
        data = read_pyskl(path, say=notes.append)
        assert data.names == ["v0", "v2"]
        assert data.labels.tolist() == [0, 2]
        (told,) = [note for note in notes if "left out" in note]
        assert re.search(r"some.pkl: annotations\[1\].*" + message, told)
        assert "\n" not in told
        assert len(data.dropped) == 1 + ("frame_dir" in changes)
        report = prepare("pyskl", path, tmp_path / "out.safetensors")
        assert len(report.damaged) == 1
        write.write_pyskl(path, annotations[1:2], None)
        if "most others" not in message:
            with pytest.raises(ValueError, match=message) as error:
                read_pyskl(path)
            one_line(error, "some.pkl: annotations[0]")

    def test_what_is_no_file_of_this_kind(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        path = tmp_path / "some.pkl"
        for content, message in (
            ([1, 2], "no dictionary with a list 'annotations'"),
            ((["a"], [0]), "names and labels of ST-GCN belong to a file such as train_data_joint.npy"),
            ({"train": [1], "test": [2]}, "this is no file of PYSKL"),
            ({"annotations": []}, "'annotations' is empty"),
            ({"annotations": [3]}, r"annotations\[0\]: a int, expected a dictionary"),
            ({"annotations": [{"label": 1}]}, r"annotations\[0\]: 'frame_dir' is missing"),
            (
                {"annotations": [{"frame_dir": "a", "raw_file": "b.pkl"}]},
                "'keypoint' is missing, which this file keeps in kpfiles",
            ),
            ({"annotations": annotations, "split": ["v0"]}, "'split' is no dictionary"),
            ({"annotations": annotations, "split": {"train": [("v0",)]}}, "'split' is no dictionary"),
        ):
            path.write_bytes(pickle.dumps(content))
            with pytest.raises(ValueError, match=message) as error:
                read_pyskl(path)
            one_line(error, "some.pkl")
        path.write_bytes(pickle.dumps({"annotations": [print]}))
        with pytest.raises(ValueError, match="names 'builtins' 'print'"):
            read_pyskl(path)

    def test_nan_is_a_joint_not_seen(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        path, notes = tmp_path / "some.pkl", []
        for entry in annotations:
            entry.pop("keypoint_score")
        annotations[0]["keypoint"][0, 2, 4] = np.nan
        write.write_pyskl(path, annotations, None)
        data = read_pyskl(path, say=notes.append)
        assert data.num_clips == 3
        assert data.valid is not None
        assert (~data.valid).nonzero().tolist() == [[2, 4]]
        assert any("1 joints are NaN: marked as not seen" in note for note in notes)

    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("train", "val"),
            ("Train", "Test"),
            ("TRAIN", "VAL"),
            ("trainset", "valset"),
            ("train_set", "test_set"),
            ("training", "testing"),
            ("training_split", "validation_split"),
            ("Train Set", "Eval Set"),
            ("train.txt", "dev.txt"),
        ],
    )
    def test_halves_in_every_spelling(
        self, tmp_path: Path, annotations: list[dict[str, Any]], train: str, test: str
    ) -> None:
        write.write_pyskl(tmp_path / "some.pkl", annotations, {train: ["v0", "v2"], test: ["v1"]})
        splits = read_pyskl(tmp_path / "some.pkl").splits
        assert list(splits) == ["official"]
        assert splits["official"].train.tolist() == [True, False, True]
        assert splits["official"].test.tolist() == [False, True, False]

    def test_splits_that_match_nothing_twice_or_no_half(
        self, tmp_path: Path, annotations: list[dict[str, Any]]
    ) -> None:
        path, notes = tmp_path / "some.pkl", []
        write.write_pyskl(path, annotations, {"train": ["v0.mp4", "v1.mp4"], "val": ["v2.mp4"]})
        with pytest.raises(
            ValueError, match=r"'train' matches no clip: it names 'v0.mp4', the annotations 'v0'"
        ):
            read_pyskl(path)
        write.write_pyskl(path, annotations, {"train": ["v0"], "Training": ["v1"]})
        with pytest.raises(ValueError, match="'train' and 'Training' both name the train half"):
            read_pyskl(path)
        write.write_pyskl(path, annotations, {"latest": ["v0", "gone"], "xsub_train": ["v1"], "xsub_val": []})
        data = read_pyskl(path, say=notes.append)
        told = "\n".join(notes)
        assert "split key 'latest' names no half" in told
        assert "split 'latest': 1 of 2 names are no clip, the first is 'gone'" in told
        assert "split 'xsub': its test half is empty" in told
        assert data.splits["latest"].test.sum() == 0
        annotations[2]["frame_dir"] = "v0"
        write.write_pyskl(path, annotations, None)
        with pytest.raises(
            ValueError, match=r"annotations\[0\] and annotations\[2\] both have frame_dir 'v0'"
        ) as error:
            read_pyskl(path)
        one_line(error, "some.pkl")

    def test_other_forms_of_the_file(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        path = tmp_path / "some.pkl"
        write.write_pyskl(path, annotations, {"train": ["v0", "v1"], "test": ["v2"]})
        expected = read_pyskl(path)
        path.write_bytes(pickle.dumps({"Train": annotations[:2], "Test": annotations[2:]}))
        assert read_pyskl(path).fingerprint() == expected.fingerprint()
        path.write_bytes(
            pickle.dumps(
                [
                    entry | {"split": w}
                    for entry, w in zip(annotations, ["train", "train", "val"], strict=True)
                ]
            )
        )
        assert read_pyskl(path).fingerprint() == expected.fingerprint()
        path.write_bytes(pickle.dumps(annotations))
        data = read_pyskl(path)
        assert (data.names, data.splits) == (["v0", "v1", "v2"], {})
        path.write_bytes(pickle.dumps(annotations[2]))
        assert read_pyskl(path).names == ["v2"]
        for entry in annotations:
            entry["keypoint"] = entry["keypoint"].tolist()
        path.write_bytes(pickle.dumps(annotations))
        assert torch.equal(read_pyskl(path).coords, data.coords)

    def test_more_bodies_than_frames(self, tmp_path: Path) -> None:
        """Frames in front of bodies, and nothing that says so."""
        entry = {"frame_dir": "a", "label": 0, "keypoint": RNG.uniform(1, 9, (8, 2, 17, 2))}
        write.write_pyskl(tmp_path / "some.pkl", [entry], {})
        with pytest.raises(ValueError, match=r"\(8, 2, 17, 2\), more bodies than frames") as error:
            read_pyskl(tmp_path / "some.pkl")
        one_line(error, "annotations[0]")

    def test_text_labels_become_classes(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        for entry, label in zip(annotations, ["walk", "run", np.str_("walk")], strict=True):
            entry["label"] = str(label)
        write.write_pyskl(tmp_path / "some.pkl", annotations, None)
        data = read_pyskl(tmp_path / "some.pkl")
        assert (data.labels.tolist(), data.label_names) == ([1, 0, 1], ("run", "walk"))

    def test_a_third_channel_that_is_a_score_and_one_body(
        self, tmp_path: Path, annotations: list[dict[str, Any]]
    ) -> None:
        write.write_pyskl(tmp_path / "some.pkl", annotations, None)
        expected = read_pyskl(tmp_path / "some.pkl")
        notes: list[str] = []
        for entry in annotations:
            score = entry.pop("keypoint_score")
            entry["keypoint"] = np.concatenate([entry["keypoint"], score[..., None]], axis=-1)
        annotations[0]["keypoint"] = annotations[0]["keypoint"][0]
        annotations[0]["box_score"] = 0.5
        write.write_pyskl(tmp_path / "some.pkl", annotations, None)
        data = read_pyskl(tmp_path / "some.pkl", say=notes.append)
        assert torch.equal(data.coords, expected.coords)
        assert data.valid is not None
        assert expected.valid is not None
        assert torch.equal(data.valid, expected.valid)
        assert any("third channel, within 0 and 1 beside pixels, is taken as" in note for note in notes)
        assert any("keys of annotations that are not read: box_score" in note for note in notes)

    @pytest.mark.parametrize("protocol", [4, 5])
    def test_the_hosted_files_of_mmaction2(self, tmp_path: Path, protocol: int) -> None:
        """Of the form of ntu60_3d.pkl: float32 in 3-D, two people, the splits of the benchmark."""
        names = ["S001C001P001R001A001", "S001C002P003R001A060", "S002C001P003R002A002"]
        points = [RNG.normal(size=(bodies, 4, 25, 3)).astype(np.float32) for bodies in (1, 2, 1)]
        annotations = [
            write.pyskl_annotation(
                name, x, int(name[-3:]) - 1, img_shape=(1080, 1920), original_shape=(1080, 1920)
            )
            for name, x in zip(names, points, strict=True)
        ]
        split = {
            "xsub_train": names[:1],
            "xsub_val": names[1:],
            "xview_train": names[1:2],
            "xview_val": names[::2],
        }
        write.write_pyskl(tmp_path / "ntu60_3d.pkl", annotations, split, protocol)
        report = prepare("pyskl", tmp_path / "ntu60_3d.pkl", tmp_path / "out.safetensors")
        data = load(tmp_path / "out.safetensors")
        assert data.layout == get_layout("ntu25")
        assert (data.labels.tolist(), len(data.label_names)) == ([0, 59, 1], 60)
        assert data.label_names[59] == "walking apart from each other"
        assert data.fps.tolist() == [30, 30, 30]
        assert sorted(data.splits) == ["xsub", "xview"]
        assert report.damaged == []
        for name, x in zip(names, points, strict=True):
            for body, expected in zip(clip_of(data, name), x, strict=True):
                np.testing.assert_array_equal(body, expected)

    def test_layouts(self, tmp_path: Path) -> None:
        points = np.ones((1, 2, 25, 2), np.float32)
        write.write_pyskl(tmp_path / "some.pkl", [write.pyskl_annotation("v", points, 0)], None)
        with pytest.raises(ValueError, match=r"several layouts have.*--layout ntu25 or --layout openpose25"):
            read_pyskl(tmp_path / "some.pkl")
        assert read_pyskl(tmp_path / "some.pkl", layout="ntu25").layout.name == "ntu25"
        with pytest.raises(ValueError, match="25 joints, but layout 'coco17' has 17"):
            read_pyskl(tmp_path / "some.pkl", layout="coco17")
        write.write_pyskl(tmp_path / "some.pkl", [write.pyskl_annotation("v", points[:, :, :11], 0)], None)
        with pytest.raises(ValueError, match="11 joints in 2 channels, which is no known skeleton"):
            read_pyskl(tmp_path / "some.pkl")
