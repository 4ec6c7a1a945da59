"""The cases of pose tools' files beside the checkout come in right."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastamr.data import PackedSkeletons, read

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason="no folder ../shared/cases beside the checkout"),
]


def read_quietly(path: Path) -> PackedSkeletons:
    return read(path, say=lambda note: None)


def facts(data: PackedSkeletons) -> tuple[str, int, int, int]:
    return data.layout.name, data.num_clips, data.num_bodies, data.num_frames


def test_20_openpose_folder() -> None:
    data = read_quietly(CASES / "20_openpose_folder")
    assert facts(data) == ("openpose25", 1, 1, 4)
    assert data.valid is not None
    unseen = {data.layout.joints[joint] for joint in (~data.valid).nonzero()[:, 1].tolist()}
    assert unseen == {
        f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")
    }


@pytest.mark.parametrize("name", ["predictions.json", "results.json"])
def test_24_mmpose_predictions(name: str) -> None:
    assert facts(read_quietly(CASES / "24_mmpose_predictions" / name)) == ("coco17", 1, 1, 4)


def test_28_yolo() -> None:
    data = read_quietly(CASES / "28_yolo")
    assert (*facts(data), data.body_names) == ("coco17", 1, 1, 3, ["1"])
    frame = read_quietly(CASES / "28_yolo" / "frame.json")
    assert (*facts(frame), frame.body_names) == ("coco17", 1, 1, 1, ["1"])
