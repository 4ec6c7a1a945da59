from __future__ import annotations

import math

import numpy as np
import pytest

from fastamr.data.synthetic.kinematics import (
    BONES,
    DOF_ROW,
    DOFS,
    bone_lengths,
    forward_kinematics,
    sine_cosine,
)
from fastamr.data.synthetic.timeline import rest_pose
from fastamr.skeleton import get_layout

LAYOUT = get_layout("ntu25")
JOINT = {name: index for index, name in enumerate(LAYOUT.joints)}


def pose(**angles: float) -> np.ndarray:
    """One frame with all angles 0 but the given ones."""
    column = np.zeros((len(DOFS), 1), dtype=np.float32)
    column[[DOF_ROW["left_plant"], DOF_ROW["right_plant"]]] = 0.5
    for name, angle in angles.items():
        column[DOF_ROW[name]] = angle
    return column


def bones(count: int = 1, stature: float = 1.8) -> np.ndarray:
    still = np.zeros((count, len(BONES)), dtype=np.float32)
    return bone_lengths(np.full(count, stature, dtype=np.float32), still)


def joints(**angles: float) -> dict[str, np.ndarray]:
    points = forward_kinematics(pose(**angles), bones())
    return {name: points[:, index, 0] for name, index in JOINT.items()}


def length(bone: str) -> float:
    return float(bones()[BONES.index(bone), 0])


def test_sine_and_cosine_match_the_library_and_stay_on_the_circle():
    angle = np.linspace(-30, 30, 20001, dtype=np.float32)
    sine, cosine = sine_cosine(angle)
    assert sine.dtype == cosine.dtype == np.float32
    np.testing.assert_allclose(sine, np.sin(angle.astype(np.float64)), atol=4e-6)
    np.testing.assert_allclose(cosine, np.cos(angle.astype(np.float64)), atol=4e-6)
    np.testing.assert_allclose(sine * sine + cosine * cosine, 1, atol=2e-6)


def test_bone_lengths_scale_with_stature_and_variation():
    variation = np.zeros((2, len(BONES)), dtype=np.float32)
    variation[1, BONES.index("thigh")] = 0.1
    lengths = bone_lengths(np.array([1.5, 2.0], dtype=np.float32), variation)
    np.testing.assert_allclose(
        lengths[:, 1] / lengths[:, 0], np.where(np.array(BONES) == "thigh", 1.1, 1) * 4 / 3, rtol=1e-6
    )
    # Soles to the middle of the head: about 93 % of the stature.
    upright = ("heel", "shank", "thigh", "hip_drop", "lower_spine", "upper_spine", "neck", "head")
    assert sum(lengths[BONES.index(bone), 0] for bone in upright) == pytest.approx(0.95 * 1.5, rel=0.02)


def test_the_zero_pose_stands_straight_on_the_floor():
    at = joints()
    np.testing.assert_allclose(at["left_ankle"][1], length("heel"), atol=1e-6)
    np.testing.assert_allclose(
        at["base_of_spine"][1],
        length("heel") + length("shank") + length("thigh") + length("hip_drop"),
        atol=1e-5,
    )
    assert at["left_shoulder"][0] == pytest.approx(length("shoulder"), abs=1e-6)
    assert at["right_shoulder"][0] == pytest.approx(-length("shoulder"), abs=1e-6)
    arm = length("upper_arm") + length("forearm") + length("palm")
    np.testing.assert_allclose(at["left_shoulder"] - at["left_hand"], [0, arm, 0], atol=1e-5)
    assert at["left_foot"][2] > at["left_ankle"][2]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_arm_goes_where_its_angles_say(side: str):
    outward = 1.0 if side == "left" else -1.0
    quarter = math.pi / 2

    def upper_arm(**angles: float) -> np.ndarray:
        at = joints(**{f"{side}_{name}": angle for name, angle in angles.items()})
        return (at[f"{side}_elbow"] - at[f"{side}_shoulder"]) / length("upper_arm")

    def forearm(**angles: float) -> np.ndarray:
        at = joints(**{f"{side}_{name}": angle for name, angle in angles.items()})
        return (at[f"{side}_wrist"] - at[f"{side}_elbow"]) / length("forearm")

    np.testing.assert_allclose(upper_arm(elevation=quarter), [0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(upper_arm(elevation=quarter, azimuth=quarter), [outward, 0, 0], atol=1e-5)
    np.testing.assert_allclose(upper_arm(elevation=math.pi), [0, 1, 0], atol=1e-5)
    # The hanging arm bends forward, whatever its plane; the raised one upward if the spin follows the plane.
    np.testing.assert_allclose(forearm(azimuth=1.1, elbow=quarter), [0, 0, 1], atol=1e-5)
    for azimuth in (0.0, 0.7, quarter):
        bent = forearm(elevation=quarter, azimuth=azimuth, spin=azimuth, elbow=quarter)
        np.testing.assert_allclose(bent, [0, 1, 0], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_leg_goes_where_its_angles_say(side: str):
    quarter = math.pi / 2
    at = joints(**{f"{side}_hip": quarter, f"{side}_knee": quarter})
    np.testing.assert_allclose(at[f"{side}_knee"] - at[f"{side}_hip"], [0, 0, length("thigh")], atol=1e-5)
    np.testing.assert_allclose(at[f"{side}_ankle"] - at[f"{side}_knee"], [0, -length("shank"), 0], atol=1e-5)
    at = joints(**{f"{side}_spread": quarter})
    outward = 1.0 if side == "left" else -1.0
    np.testing.assert_allclose(
        at[f"{side}_knee"] - at[f"{side}_hip"], [outward * length("thigh"), 0, 0], atol=1e-5
    )


def test_trunk_and_heading():
    at = joints(yaw=math.pi / 2)
    np.testing.assert_allclose(at["left_hip"] - at["right_hip"], [0, 0, -2 * length("hip")], atol=1e-5)
    straight, bent, leaning, turned = joints(), joints(bend=0.8), joints(lean=0.8), joints(turn=0.8)
    assert bent["head"][2] > straight["head"][2] + 0.2
    assert leaning["head"][0] < -0.2
    # Half of the turn at each of the two spine joints: the chest turns to the left, the hips stay.
    shoulders = turned["left_shoulder"] - turned["right_shoulder"]
    assert math.atan2(-shoulders[2], shoulders[0]) == pytest.approx(0.8, abs=1e-5)
    np.testing.assert_allclose(turned["left_hip"], straight["left_hip"], atol=1e-6)
    bowed = joints(pitch=0.9)
    np.testing.assert_allclose((bowed["left_hip"] - bowed["left_knee"])[[0, 2]], 0, atol=1e-5)


def test_path_lift_and_planted_foot():
    at = joints(path_x=1.0, path_z=2.0, lift=0.3, left_hip=0.5)
    assert at["right_ankle"][1] == pytest.approx(0.3 + length("heel"), abs=1e-5)
    np.testing.assert_allclose((at["left_ankle"] + at["right_ankle"])[[0, 2]] / 2, [1, 2], atol=1e-5)
    at = joints(left_hip=0.5, left_plant=0.0, right_plant=1.0)
    np.testing.assert_allclose(at["right_ankle"][[0, 2]], 0, atol=1e-6)


def test_any_pose_keeps_the_bones_and_touches_the_floor():
    random = np.random.default_rng(0)
    count = 257
    poses = rest_pose() + random.uniform(-1.5, 1.5, (len(DOFS), count)).astype(np.float32)
    poses[DOF_ROW["lift"]] = 0
    points = forward_kinematics(poses, bones(count))
    assert points.shape == (3, 25, count)
    assert points.dtype == np.float32
    child, parent = np.array(LAYOUT.edges).T
    edges = np.linalg.norm(points[:, child] - points[:, parent], axis=0)
    np.testing.assert_allclose(edges, np.broadcast_to(edges[:, :1], edges.shape), atol=2e-5)
    sole = np.minimum(
        points[1, [JOINT["left_ankle"], JOINT["right_ankle"]]] - length("heel"),
        points[1, [JOINT["left_foot"], JOINT["right_foot"]]],
    )
    np.testing.assert_allclose(sole.min(axis=0), 0, atol=1e-5)


def test_each_frame_is_computed_on_its_own():
    random = np.random.default_rng(1)
    poses = random.uniform(-1, 1, (len(DOFS), 33)).astype(np.float32)
    whole = forward_kinematics(poses, bones(33))
    for place in (0, 16, 32):
        one = forward_kinematics(poses[:, place : place + 1], bones())
        np.testing.assert_array_equal(whole[:, :, place : place + 1], one)
