"""PYSKL's annotation files: round trips, choices and unsound entries."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastamr.data import read
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
            ({"keypoint": None}, r"annotations\[1\]: 'keypoint' is no array of numbers"),
            ({"keypoint": np.array(["a"])}, "is no array of numbers"),
            ({"keypoint": np.zeros((4, 17, 2))}, r"shape \(4, 17, 2\), expected \(bodies, frames, joints"),
            ({"keypoint": np.zeros((1, 4, 17, 4))}, "expected .bodies, frames, joints, 2 or 3."),
            ({"total_frames": 7}, "'total_frames' is 7, but 'keypoint' has 4 frames"),
            ({"keypoint_score": np.zeros((1, 4, 17))}, "'keypoint_score' is no array"),
            ({"total_frames": ((4,),)}, "'total_frames' is a tuple, but"),
            ({"frame_dir": (("v",),)}, "'frame_dir' is a tuple, expected a name"),
            ({"label": "run"}, "'label' is no class index"),
            ({"label": -5}, "'label' is no class index"),
            (
                {"keypoint": np.zeros((2, 4, 25, 2)), "keypoint_score": None},
                r"joints and channels are \(25, 2\)",
            ),
        ],
    )
    def test_unsound_annotations(
        self, tmp_path: Path, annotations: list[dict[str, Any]], changes: dict[str, Any], message: str
    ) -> None:
        annotations[1] |= changes
        write.write_pyskl(tmp_path / "some.pkl", annotations, None)
        with pytest.raises(ValueError, match=message) as error:
            read_pyskl(tmp_path / "some.pkl")
        one_line(error, "some.pkl")

    def test_what_is_no_file_of_this_kind(self, tmp_path: Path, annotations: list[dict[str, Any]]) -> None:
        path = tmp_path / "some.pkl"
        for content, message in (
            ([1, 2], "no dictionary with a list 'annotations'"),
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
        points = np.ones((1, 2, 17, 2), np.float32)
        points[0, 1, 4] = np.nan
        write.write_pyskl(path, [write.pyskl_annotation("v", points, 0)], None)
        with pytest.raises(ValueError, match=r"clip 0 \('v'\), frame 1, body 0, joint 4: .* not finite"):
            read_pyskl(path)

    def test_layouts(self, tmp_path: Path) -> None:
        points = np.ones((1, 2, 25, 2), np.float32)
        write.write_pyskl(tmp_path / "some.pkl", [write.pyskl_annotation("v", points, 0)], None)
        assert read_pyskl(tmp_path / "some.pkl").layout.name == "openpose25"
        assert read_pyskl(tmp_path / "some.pkl", layout="ntu25").layout.name == "ntu25"
        with pytest.raises(ValueError, match="25 joints, but layout 'coco17' has 17"):
            read_pyskl(tmp_path / "some.pkl", layout="coco17")
        write.write_pyskl(tmp_path / "some.pkl", [write.pyskl_annotation("v", points[:, :, :9], 0)], None)
        with pytest.raises(ValueError, match="9 joints in 2 channels, which is no known skeleton"):
            read_pyskl(tmp_path / "some.pkl")
