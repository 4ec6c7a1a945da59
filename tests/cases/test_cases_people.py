"""The cases of frames, people and named joints beside the checkout: each is read right, or refused with the way on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastamr.data import PackedSkeletons, read

pytestmark = pytest.mark.slow

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


def case(name: str) -> Path:
    """The file of a case; skips where the cases are not beside the checkout."""
    if not CASES.is_dir():
        pytest.skip("no folder ../shared/cases beside the checkout")
    return CASES / name


def noses(data: PackedSkeletons) -> list[list[float]]:
    """Where the nose of each body is, frame by frame."""
    nose = data.layout.joints.index("nose")
    bodies = zip(data.offsets[:-1].tolist(), data.offsets[1:].tolist(), strict=True)
    return [data.coords[begin:end, nose, 0].tolist() for begin, end in bodies]


def test_case_01_image_names_with_times() -> None:
    said: list[str] = []
    data = read(case("01_image_names_time/poses.json"), say=said.append)
    assert noses(data) == [[300.0 + frame for frame in range(12)]]
    assert [line for line in said if "times in the images' names" in line]


@pytest.mark.parametrize(
    ("name", "layout"), [("h36m_coco", "h36m17"), ("posetrack", "posetrack17"), ("jhmdb", "jhmdb15")]
)
def test_case_03_named_joints(name: str, layout: str) -> None:
    data = read(case(f"03_named_joints_ignored/{name}.json"), say=lambda line: None)
    assert data.layout.name == layout
    assert data.valid is None


@pytest.mark.parametrize("name", ["11_alphapose_idx_all_0", "12_untracked_people_swap"])
def test_cases_11_and_12_people_without_tracks(name: str) -> None:
    said: list[str] = []
    path = case(f"{name}/poses.json")
    assert noses(read(path, say=said.append)) == [[x + frame for frame in range(12)] for x in (100.0, 500.0)]
    assert [line for line in said if "linked from frame to frame" in line]
    with pytest.raises(ValueError, match="run AlphaPose with --pose_track"):
        read(path, track=False)


def test_case_16_photographs() -> None:
    with pytest.raises(ValueError, match="582 of its 586 frames are empty, which is no motion; photographs"):
        read(case("16_coco_stills/stills.json"))
