"""The cases of ``../shared/cases`` about tables, drawing of 2-D joints and small faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastamr import cli
from fastamr.data import read

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"the shared cases are not in {CASES}"),
]


@pytest.mark.parametrize(("name", "layout"), [("coco_1_to_17", "coco17"), ("kinect_1_to_20", "kinect20")])
def test_04_joints_from_1(name: str, layout: str) -> None:
    data = read(CASES / "04_csv_joints_from_1" / f"{name}.csv")
    assert (data.layout.name, data.valid) == (layout, None)


@pytest.mark.parametrize("name", ["visibility", "score", "likelihood"])
def test_09_confidence_names(name: str) -> None:
    data = read(CASES / "09_csv_confidence_names" / f"{name}.csv")
    assert data.valid is not None
    wrist = data.layout.index("left_wrist")
    assert (~data.valid).nonzero().tolist() == [[frame, wrist] for frame in range(4)]


def test_17_show_2d(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    packed, out = tmp_path / "out.safetensors", tmp_path / "clip.svg"
    assert cli.main(["import", str(CASES / "17_show_2d" / "poses.json"), str(packed)]) == 0
    assert cli.main(["show", str(packed), "--out", str(out)]) == 0
    text = out.read_text()
    assert "<!-- x (px) -->" in text
    assert "<!-- -y (px) -->" in text


@pytest.mark.parametrize(("name", "channels"), [("dots", 2), ("underscores", 3)])
def test_25_wide(name: str, channels: int) -> None:
    data = read(CASES / "25_wide_csv" / f"{name}.csv")
    assert (data.layout.name, data.num_bodies, data.coords.shape) == ("coco17", 1, (4, 17, channels))


@pytest.mark.parametrize("name", ["azure_kinect32", "mediapipe33"])
def test_26_other_skeletons(name: str) -> None:
    data = read(CASES / "26_other_skeletons" / f"{name}.csv")
    assert data.layout.name == name.replace("_kinect", "")


def test_27_split_and_label() -> None:
    data = read(CASES / "27_own_data_without_split" / "two_clips.csv")
    assert (int(data.splits["official"].train.sum()), int(data.splits["official"].test.sum())) == (2, 2)
    assert data.num_clips == 4
    assert int(data.labels.min()) >= 0


def test_29_msr_action3d() -> None:
    data = read(CASES / "29_mocap_files" / "a01_s01_e01_skeleton3D.txt")
    assert (data.layout.name, data.label_names[data.labels[0]]) == ("kinect20", "high arm wave")
