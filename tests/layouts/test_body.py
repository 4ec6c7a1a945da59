from __future__ import annotations

import pytest

from fastamr.layouts.body import REGIONS, regions_of
from fastamr.skeleton import LAYOUTS, SkeletonLayout, get_layout

BODIES = [name for name in LAYOUTS if name != "hand21"]


@pytest.mark.parametrize("name", BODIES)
def test_every_joint_of_a_body_has_a_region_and_its_mirror_the_mirrored_one(name: str) -> None:
    layout = get_layout(name)
    regions = regions_of(layout)
    assert len(regions) == layout.num_joints
    assert set(regions) <= set(REGIONS)
    assert {"head", "left_arm", "right_arm", "left_leg", "right_leg"} <= set(regions)
    for left, right in layout.pairs:
        one, other = regions[left], regions[right]
        assert one is not None
        assert one.replace("left", "right") == other


def test_the_joints_of_ntu25() -> None:
    layout = get_layout("ntu25")
    found = {region: [] for region in REGIONS}  # type: dict[str, list[str]]
    for joint, region in zip(layout.joints, regions_of(layout), strict=True):
        assert region is not None
        found[region].append(joint)
    assert found["trunk"] == ["base_of_spine", "middle_of_spine", "spine"]
    assert found["head"] == ["neck", "head"]
    assert found["left_leg"] == ["left_hip", "left_knee", "left_ankle", "left_foot"]
    assert len(found["left_arm"]) == len(found["right_arm"]) == 6


def test_a_hand_is_of_no_region() -> None:
    assert set(regions_of(get_layout("hand21"))) == {None}


def test_unknown_joints_are_of_the_region_they_hang_on() -> None:
    joints = ("pelvis", "left_knee", "left_marker", "left_marker_two", "beacon")
    layout = SkeletonLayout("mine", joints, (-1, 0, 1, 2, -1))
    assert regions_of(layout) == ("trunk", "left_leg", "left_leg", "left_leg", None)
