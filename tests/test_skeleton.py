from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fastamr.skeleton import LAYOUTS, SkeletonLayout, get_layout

SIZES = {
    "ntu25": 25,
    "kinect20": 20,
    "coco17": 17,
    "openpose18": 18,
    "openpose25": 25,
    "smpl22": 22,
    "h36m17": 17,
    "sbu15": 15,
    "bandai21": 21,
    "hdm31": 31,
    "mediapipe33": 33,
    "halpe26": 26,
    "halpe136": 136,
    "coco_wholebody133": 133,
    "azure32": 32,
    "smpl24": 24,
    "hand21": 21,
    "penn13": 13,
    "jhmdb15": 15,
    "mpii16": 16,
    "posetrack17": 17,
    "crowdpose14": 14,
    "aic14": 14,
    "lsp14": 14,
    "body": 39,
}
# Bones of NTU RGB+D as ST-GCN lists them, joints counted from 1.
NTU_BONES = (
    "1-2 2-21 3-21 4-3 5-21 6-5 7-6 8-7 9-21 10-9 11-10 12-11 13-1 14-13 15-14 16-15 17-1 18-17 19-18 20-19 "
    "22-23 23-8 24-25 25-12"
)
TREE = ("pelvis", "left_leg", "right_leg", "chest")


@pytest.mark.parametrize("name", SIZES)
def test_every_layout_is_one_tree_whose_sides_mirror_each_other(name: str) -> None:
    layout = get_layout(name)
    assert list(SIZES) == list(LAYOUTS)
    assert layout.num_joints == SIZES[name] == len(layout.parents)
    assert len(layout.edges) == layout.num_joints - 1
    assert sum(layout.degrees) == 2 * len(layout.edges)
    mirror = {joint: joint for joint in range(layout.num_joints)}
    for left, right in layout.pairs:
        mirrored = layout.joints[left].replace("left", "right")
        if mirrored.startswith("face"):
            mirrored = layout.joints[right]  # see test_the_68_points_of_a_face
        if name == "bandai21":
            mirrored = mirrored.replace("_L", "_R")
        elif name == "hdm31":
            mirrored = re.sub(r"(^|_)l(?!ower)", r"\1r", mirrored)
        assert mirrored == layout.joints[right]
        mirror |= {left: right, right: left}
    assert all(
        "left" not in layout.joints[j] and "right" not in layout.joints[j] for j in mirror if mirror[j] == j
    )
    if name not in ("openpose18", "coco17", "ntu25"):
        assert {(mirror[a], mirror[b]) for a, b in layout.edges} == set(layout.edges)
    if name == "hand21":
        assert (layout.hips, layout.spine, layout.pairs) == (None, None, ())
        return
    assert layout.hips is not None
    assert re.search("hip|UpperLeg", layout.joints[layout.hips[0]])


@pytest.mark.parametrize(("name", "start"), [("coco_wholebody133", 23), ("halpe136", 26)])
def test_the_68_points_of_a_face(name: str, start: int) -> None:
    """Their mirror images as COCO-WholeBody defines them."""
    layout = get_layout(name)
    assert layout.joints[start : start + 68] == tuple(f"face_{point}" for point in range(68))
    mirror = dict(layout.pairs) | {right: left for left, right in layout.pairs}
    expected = [
        *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, *range(35, 30, -1),
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
    ]  # fmt: skip
    assert [mirror.get(start + point, start + point) - start for point in range(68)] == expected


@pytest.mark.parametrize(
    ("name", "joints"),
    [
        ("mediapipe33", {0: "nose", 7: "left_ear", 9: "mouth_left", 11: "left_shoulder", 16: "right_wrist",
                         21: "left_thumb", 24: "right_hip", 29: "left_heel", 32: "right_foot_index"}),
        ("halpe26", {16: "right_ankle", 17: "head", 18: "neck", 19: "hip", 20: "left_big_toe", 22: "left_small_toe",
                     25: "right_heel"}),
        ("halpe136", {25: "right_heel", 26: "face_0", 94: "left_hand_root", 114: "left_pinky_finger4",
                      115: "right_hand_root"}),
        ("coco_wholebody133", {17: "left_big_toe", 18: "left_small_toe", 22: "right_heel", 23: "face_0",
                               91: "left_hand_root", 95: "left_thumb4", 112: "right_hand_root"}),
        ("azure32", {3: "neck", 4: "clavicle_left", 10: "thumb_left", 11: "clavicle_right", 18: "hip_left",
                     26: "head", 28: "eye_left", 31: "ear_right"}),
        ("smpl24", {15: "head", 20: "left_wrist", 22: "left_hand", 23: "right_hand"}),
        ("hand21", {0: "wrist", 4: "thumb4", 5: "forefinger1", 20: "pinky_finger4"}),
        ("penn13", {0: "head", 1: "left_shoulder", 6: "right_wrist", 12: "right_ankle"}),
        ("jhmdb15", {0: "neck", 1: "belly", 2: "face", 3: "right_shoulder", 6: "left_hip", 14: "left_ankle"}),
        ("mpii16", {0: "right_ankle", 5: "left_ankle", 6: "pelvis", 9: "head_top", 10: "right_wrist"}),
        ("posetrack17", {0: "nose", 1: "head_bottom", 2: "head_top", 3: "left_ear", 16: "right_ankle"}),
        ("crowdpose14", {0: "left_shoulder", 11: "right_ankle", 12: "top_head", 13: "neck"}),
        ("lsp14", {0: "right_ankle", 6: "right_wrist", 12: "neck", 13: "head_top"}),
        ("aic14", {0: "right_shoulder", 3: "left_shoulder", 12: "head_top", 13: "neck"}),
    ],
)  # fmt: skip
def test_the_order_of_joints_is_that_of_the_field(name: str, joints: dict[int, str]) -> None:
    assert {place: get_layout(name).joints[place] for place in joints} == joints


def test_ntu25_has_the_bones_of_the_field() -> None:
    layout = get_layout("ntu25")
    expected = {frozenset(int(joint) - 1 for joint in bone.split("-")) for bone in NTU_BONES.split()}
    assert {frozenset(edge) for edge in layout.edges} == expected
    assert layout.joints[20] == "spine"
    assert layout.degrees[20] == 4
    assert layout.degrees[0] == 3
    assert layout.spine == (0, 20)
    assert layout.hips == (12, 16)
    assert layout.root == 0


@pytest.mark.parametrize(
    ("name", "spine"),
    [("kinect20", (0, 2)), ("openpose25", (8, 1)), ("smpl22", (0, 9)), ("h36m17", (0, 8)), ("coco17", None)],
)
def test_spines(name: str, spine: tuple[int, int] | None) -> None:
    assert get_layout(name).spine == spine


def test_roots_differ_from_the_first_joint_where_the_model_says_so() -> None:
    assert get_layout("openpose18").joints[get_layout("openpose18").root] == "neck"
    assert get_layout("openpose25").joints[get_layout("openpose25").root] == "mid_hip"


def test_get_layout() -> None:
    layout = SkeletonLayout("mine", TREE, (-1, 0, 0, 0))
    assert get_layout(layout) is layout
    with pytest.raises(ValueError, match=r"unknown layout 'ntu52'.*did you mean 'ntu25'"):
        get_layout("ntu52")
    with pytest.raises(TypeError, match="name or a SkeletonLayout, got int"):
        get_layout(25)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"joints": (), "parents": ()}, "joints is empty"),
        ({"parents": (-1, 0, 0)}, "parents has 3 entries, expected 4"),
        ({"joints": ("a", "b", "a", "c")}, r"\['a'\] occur more than once"),
        ({"parents": (-1, 0, 4, 0)}, r"parents\[2\] is 4, expected -1 or an index below 4"),
        ({"parents": (-1, 0, -2, 0)}, r"parents\[2\] is -2"),
        ({"parents": (-1, 2, 3, 1)}, "cycle .left_leg -> right_leg -> chest -> left_leg"),
        ({"parents": (0, 0, 0, 0)}, "cycle .pelvis -> pelvis"),
        ({"pairs": ((1, 4),)}, r"pairs holds \(1, 4\)"),
        ({"pairs": ((1, 2, 3),)}, "expected two joint indices"),
        ({"hips": (1, 1)}, r"hips holds \(1, 1\)"),
        ({"spine": (0, -1)}, r"spine holds \(0, -1\)"),
    ],
)
def test_bad_layouts_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SkeletonLayout(**({"name": "mine", "joints": TREE, "parents": (-1, 0, 0, 0)} | fields))  # type: ignore[arg-type]


def test_index() -> None:
    layout = get_layout("ntu25")
    assert layout.index("head") == 3
    assert layout.index(24) == 24
    with pytest.raises(ValueError, match=r"unknown joint of layout 'ntu25' 'heat'.*did you mean 'head'"):
        layout.index("heat")
    with pytest.raises(ValueError, match="joint 25: layout 'ntu25' has joints 0 to 24"):
        layout.index(25)


@pytest.mark.parametrize("name", SIZES)
def test_dictionaries_survive_json(name: str) -> None:
    layout = LAYOUTS[name]
    again = SkeletonLayout.from_dict(json.loads(json.dumps(layout.to_dict())))
    assert again == layout
    assert hash(again) == hash(layout)


def test_bad_dictionaries_are_refused() -> None:
    fields = get_layout("coco17").to_dict()
    with pytest.raises(ValueError, match=r"unknown field of a skeleton layout 'parrents'.*'parents'"):
        SkeletonLayout.from_dict(fields | {"parrents": []})
    with pytest.raises(ValueError, match="joints, parents is missing"):
        SkeletonLayout.from_dict({"name": "mine"})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_hip", "right_hip"),
        ("LeftHip", "RightHip"),
        ("hip_left", "hip_right"),
        ("LEFT_HIP", "RIGHT_HIP"),
        ("Hip_L", "Hip_R"),
        ("l.hip", "r.hip"),
        ("LHip", "RHip"),
        ("hipL", "hipR"),
        ("lhip", "rhip"),
    ],
)
def test_sides_are_found_in_many_spellings(left: str, right: str) -> None:
    layout = SkeletonLayout.from_joints("mine", ["lowerback", right, left], [-1, 0, 0])
    assert layout.pairs == ((2, 1),)
    assert layout.hips == (2, 1)
    assert layout.spine is None


def test_names_without_a_mirror_are_not_paired() -> None:
    assert SkeletonLayout.from_joints("mine", ["lowerback", "upperback", "left_ear"], [-1, 0, 1]).pairs == ()


def test_a_known_skeleton_keeps_its_own_name_only_with_its_own_bones() -> None:
    layout = get_layout("kinect20")
    joints = [joint.replace("_", " ").title() for joint in layout.joints]
    assert SkeletonLayout.from_joints("mine", joints, layout.parents) is layout
    parents = [*layout.parents[:-1], 16]
    assert SkeletonLayout.from_joints("mine", joints, parents).name == "mine"


@pytest.mark.parametrize(
    ("folder", "name", "pairs", "hips", "spine"),
    [
        ("nw_ucla", "kinect20", 8, ("hip_left", "hip_right"), ("hip_center", "shoulder_center")),
        ("sbu_interaction", "sbu15", 6, ("left_hip", "right_hip"), ("torso", "neck")),
        ("bandai_namco_2", "bandai21", 8, ("UpperLeg_L", "UpperLeg_R"), ("Hips", "Chest")),
        (
            "hdm05_11class",
            "hdm31",
            12,
            ("root_@_lhipjoint", "root_@_rhipjoint"),
            ("root", "upperback_@_thorax"),
        ),
    ],
)
def test_real_data_sets(
    shared_data: Path, folder: str, name: str, pairs: int, hips: tuple[str, str], spine: tuple[str, str]
) -> None:
    with np.load(shared_data / folder / f"{folder}.npz", allow_pickle=False) as arrays:
        layout = SkeletonLayout.from_joints("mine", arrays["joint_names"], arrays["parents"])
    assert layout.name == name
    assert len(layout.pairs) == pairs
    assert layout.hips is not None
    assert layout.spine is not None
    assert tuple(layout.joints[joint] for joint in layout.hips) == hips
    assert tuple(layout.joints[joint] for joint in layout.spine) == spine
