"""Wrong use of prepare(), and the kinds that are read in one go."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from fastamr.data.prepare.prepare import prepare

from ..readers.writers import standing
from .ntu_folder import contents, fill, load


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return fill(tmp_path / "raw", contents())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "ntu60.safetensors"


class TestUse:
    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({}, "has 0 files that end in .skeleton, none of which is one of ntu60"),
            ({"Skeleton.7z": b""}, "none of which is one of ntu60; unpack Skeleton.7z first"),
            ({"a.skeleton": b"1"}, "has 1 files.*its name is not of the form"),
            ({"S018C001P001R001A061.skeleton": b"1"}, "is no clip of NTU-60"),
        ],
    )
    def test_nothing_found(self, tmp_path: Path, out: Path, files: dict[str, bytes], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            prepare("ntu60", fill(tmp_path / "raw", files), out)
        assert not out.with_name(out.name + ".partial").exists()

    def test_wrong_arguments_before_anything_is_read(self, raw: Path, out: Path) -> None:
        with pytest.raises(ValueError, match=r"unknown kind 'ntu61'.*did you mean 'ntu60'"):
            prepare("ntu61", raw, out)
        with pytest.raises(ValueError, match="unknown dtype"):
            prepare("ntu60", raw, out, dtype="int8")
        with pytest.raises(ValueError, match="workers is 0"):
            prepare("ntu60", raw, out, workers=0)
        with pytest.raises(ValueError, match="unknown pre-processing step"):
            prepare("ntu60", raw, out, steps=["centre"])
        file = next(path for path in raw.rglob("*") if path.is_file())
        with pytest.raises(NotADirectoryError, match="is a file: name another folder"):
            prepare("ntu60", raw, file / "x" / "y")
        with pytest.raises(IsADirectoryError, match="is a folder: name a file"):
            prepare("ntu60", raw, raw)
        with pytest.raises(FileNotFoundError, match="no folder or zip archive"):
            prepare("ntu60", raw / "nothing", out.parent / "new" / "er" / "x")
        assert not (out.parent / "new").exists()
        with pytest.raises(ValueError, match="kind 'nw-ucla' has none"):
            prepare("nw-ucla", raw, out, options={"keep": "both"})
        assert not out.with_name(out.name + ".partial").exists()

    def test_makes_missing_folders(self, raw: Path, out: Path) -> None:
        out = out.parent / "new" / "er" / out.name
        report = prepare("ntu60", raw, out)
        assert load(out).num_clips == report.summary["clips"] == 5
        assert sorted(path.name for path in out.parent.iterdir()) == [report.path.name, out.name]

    def test_npz(self, tmp_path: Path, out: Path) -> None:
        x = np.zeros((2, 6, 150), dtype=np.float32)
        x[:, :4, :75] = standing(4).reshape(4, 75)
        labels, out = np.eye(3)[:2], out.parent / "new" / out.name
        np.savez(tmp_path / "mamp.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
        report = prepare("npz", tmp_path / "mamp.npz", out, steps=["center"])
        assert load(out).labels.tolist() == [0, 1, 0, 1]
        assert report.summary["clips"] == 4
        assert json.loads(report.path.read_text())["summary"]["steps"][0]["name"] == "center"

    def test_pyskl(self, tmp_path: Path, out: Path) -> None:
        keypoints = standing(5)[None, :, :17, :2]
        clip = {
            "frame_dir": "a",
            "label": 2,
            "total_frames": 5,
            "img_shape": (480, 640),
            "keypoint": keypoints,
        }
        clips = {"split": {"train": ["a"], "test": ["b"]}, "annotations": [clip, {**clip, "frame_dir": "b"}]}
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(clips))
        report = prepare("pyskl", tmp_path / "x.pkl", out)
        assert (load(out).names, report.files, report.damaged) == (["a", "b"], 1, [])

    def test_nw_ucla(self, tmp_path: Path, out: Path) -> None:
        clip = {"skeletons": np.random.default_rng(0).normal(size=(5, 20, 3)).tolist(), "label": 1}
        names = ["a01_s01_e00_v01", "a02_s01_e00_v03", "a01_s02_e00_v02"]
        raw = fill(tmp_path / "raw", {f"{name}.json": json.dumps(clip).encode() for name in names})
        fill(raw, {"a03_s01_e00_v01.json": b"{"})
        report = prepare("nw-ucla", raw, out)
        assert load(out).num_clips == 3
        assert (report.files, [damage.file for damage in report.damaged]) == (
            4,
            [f"{raw}/a03_s01_e00_v01.json"],
        )
        assert report.dropped == {}
        with pytest.raises(ValueError, match=r"a03_s01_e00_v01.json"):
            prepare("nw-ucla", raw, out, strict=True)
