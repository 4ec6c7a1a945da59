"""The cases of ``../shared/cases`` about which skeleton a file holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fastamr.data import read
from fastamr.data.readers.common.layout_choice import joints_by_count, joints_by_index, joints_by_name
from fastamr.skeleton import LAYOUTS

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason="no folder ../shared/cases beside the checkout"),
]


def test_03_named_joints_are_never_guessed_by_their_number() -> None:
    for name, layout in (("h36m_coco", "h36m17"), ("posetrack", "posetrack17"), ("jhmdb", "jhmdb15")):
        document = json.loads((CASES / "03_named_joints_ignored" / f"{name}.json").read_text())
        found = joints_by_name(document["categories"][0]["keypoints"], name)
        assert found.layout.name == layout
        assert -1 not in found.order


def test_04_joints_counted_from_1() -> None:
    def indices(name: str) -> list[int]:
        lines = (CASES / "04_csv_joints_from_1" / name).read_text().splitlines()[1:]
        return [int(line.split(",")[1]) for line in lines]

    found = joints_by_index(indices("kinect_1_to_20.csv"), 3, "f")
    assert (found.layout.name, found.order) == ("kinect20", tuple(range(1, 21)))
    with pytest.raises(ValueError, match=r"joint 0 never occurs.*--layout coco17"):
        joints_by_index(indices("coco_1_to_17.csv"), 2, "f")
    found = joints_by_index(indices("coco_1_to_17.csv"), 2, "f", given="coco17")
    assert found.order == tuple(range(1, 18))


def test_26_other_skeletons(tmp_path: Path) -> None:
    files = sorted((CASES / "26_other_skeletons").glob("*.*"))
    assert files
    for path in files:
        assert path.stem in LAYOUTS or path.stem == "azure_kinect32"
        count = int(re.findall(r"\d+", path.stem)[-1])
        if count != 14:
            assert joints_by_count(count, 3, "f").layout.name == path.stem.replace("_kinect", "")
    layout = tmp_path / "mine.yaml"
    layout.write_text(
        f"name: mine\njoints: [{', '.join('abcdefghijklmn')}]\nparents: [-1, {', '.join('0' * 13)}]\n"
    )
    data = read(CASES / "26_other_skeletons" / "crowdpose14.json", layout=str(layout))
    assert (data.layout.name, data.layout.num_joints) == ("mine", 14)
