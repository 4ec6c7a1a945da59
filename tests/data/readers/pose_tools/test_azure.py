"""Azure Kinect's body tracking in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import read
from fastamr.skeleton import get_layout

from .. import writers_pose as pose
from ..reading import clip_of, one_line
from .helpers import read_all

NAMES = [name.upper() for name in get_layout("azure32").joints]
CLIP = pose.motion(4, 2, joints=32, channels=3, scale=1000)


def test_a_recording(tmp_path: Path) -> None:
    document = pose.azure_document(CLIP, NAMES) | {
        "k4abt_sdk_version": "1.0",
        "bone_list": [["PELVIS", "NECK"]],
    }
    data, notes = read_all(pose.write(tmp_path / "take.json", document))
    assert (data.names, data.layout.name, data.body_names) == (["take"], "azure32", ["1", "2"])
    np.testing.assert_allclose(np.stack(clip_of(data, "take"), 1), CLIP / 1000, rtol=1e-6)
    assert data.fps.tolist() == pytest.approx([30], rel=1e-3)
    assert "millimetres become metres" in notes


def test_names_in_another_order_and_none(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(32)
    path = pose.write(
        tmp_path / "a.json", pose.azure_document(CLIP[:, :, order], [NAMES[place] for place in order])
    )
    data, _ = read_all(path)
    np.testing.assert_allclose(clip_of(data, "a")[0], CLIP[:, 0] / 1000, rtol=1e-6)
    data, notes = read_all(pose.write(path, pose.azure_document(CLIP)))
    assert data.layout.name == "azure32"
    assert "32 joints without names are taken as layout azure32" in notes


def test_metres_stay(tmp_path: Path) -> None:
    data, notes = read_all(pose.write(tmp_path / "a.json", pose.azure_document(CLIP / 1000)))
    np.testing.assert_allclose(clip_of(data, "a")[0], CLIP[:, 0] / 1000, rtol=1e-6)
    assert "millimetres" not in notes


def test_confidences_orientations_and_nobody(tmp_path: Path) -> None:
    document: dict[str, Any] = pose.azure_document(CLIP)
    for frame in document["frames"]:
        for body in frame["bodies"]:
            body |= {"joint_confidence_levels": [0, *[2] * 31], "joint_orientations": [[1, 0, 0, 0]] * 32}
    document["frames"][1] |= {"bodies": [], "num_bodies": 0}
    data, notes = read_all(pose.write(tmp_path / "a.json", document))
    assert data.valid is not None
    assert not data.valid[:, 0].any()
    assert "not read: joint_orientations" in notes
    assert clip_of(data, "a")[0].any(axis=(1, 2)).tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"joint_positions": [[1.0, 2.0, 3.0]] * 31}, "31 joints in 3 channels, most people have 32"),
        ({"joint_positions": [[1.0, 2.0, None]] * 32}, "joint 0 is at 1, 2, nan"),
        ({"joint_positions": [["x", 2.0, 3.0]] * 32}, "no number"),
        ({"joint_positions": None}, "no joint_positions"),
    ],
)
def test_a_bad_body_costs_itself(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    document = pose.azure_document(CLIP)
    if reason.startswith("joint 0"):
        document["frames"][2]["bodies"][1]["joint_confidence_levels"] = [2] * 32
    document["frames"][2]["bodies"][1] |= change
    data, notes = read_all(pose.write(tmp_path / "a.json", document))
    assert "frames[2], person 1" in notes
    assert reason in "".join(data.dropped.values())
    pose.write(tmp_path / "a.json", {"frames": [{"bodies": [change]}], "k4abt_sdk_version": "1"})
    with pytest.raises(ValueError, match=r"a\.json") as error:
        read(tmp_path / "a.json")
    one_line(error)
