"""The shared cases of one's own data: folders of frames, and data without a split."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fastamr.cli import main
from fastamr.data import PackedSkeletons

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"the shared cases are not in {CASES}"),
]


def test_20_openpose_folders(tmp_path: Path) -> None:
    """A folder is a clip; a folder of such folders has a clip each, and a class where asked for."""
    out = tmp_path / "out.safetensors"
    assert main(["import", str(CASES / "20_openpose_folder"), str(out)]) == 0
    data = PackedSkeletons.load(out)
    assert (data.layout.name, data.num_clips, data.num_bodies, data.num_frames) == ("openpose25", 1, 1, 4)
    for name in ("wave/a", "wave/b", "squat/a"):
        shutil.copytree(CASES / "20_openpose_folder", tmp_path / "set" / name)
    assert main(["import", str(tmp_path / "set"), str(out), "--labels", "folder"]) == 0
    data = PackedSkeletons.load(out)
    assert data.clip_frames().tolist() == [4, 4, 4]
    assert data.names == ["squat/a", "wave/a", "wave/b"]
    assert data.label_names == ("squat", "wave")


def test_27_own_data_gets_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels, a split and several files without a line of Python."""
    table, out = CASES / "27_own_data_without_split" / "two_clips.csv", tmp_path / "own.safetensors"
    assert main(["import", str(table), str(out)]) == 0
    assert main(["split", str(out), "--by", "random", "--test", "0.5", "--name", "half"]) == 0
    split = PackedSkeletons.load(out).split("half")
    assert (int(split.train.sum()), int(split.test.sum())) == (2, 2)
    shutil.copy(table, tmp_path / "a.csv")
    shutil.copy(table, tmp_path / "b.csv")
    assert main(["import", str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), str(out)]) == 0
    assert len(set(PackedSkeletons.load(out).names)) == 8
    capsys.readouterr()


def test_28_yolo_folder(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    (tmp_path / "yolo").mkdir()
    for path in (CASES / "28_yolo").glob("*.txt"):
        shutil.copy(path, tmp_path / "yolo")
    assert main(["import", str(tmp_path / "yolo"), str(out)]) == 0
    data = PackedSkeletons.load(out)
    assert (data.layout.name, data.num_bodies, data.num_frames) == ("coco17", 1, 3)
    # The folder as it is holds a document of another form and words beside the frames.
    assert main(["import", str(CASES / "28_yolo"), str(out)]) == 0
    assert PackedSkeletons.load(out).layout.name == "coco17"
