"""Which skeleton a file means, by the names of its joints, by their number, by how they are counted."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data.readers.common.layout_choice import Joints, joints_by_count, joints_by_index, joints_by_name
from fastamr.layouts.names import canonical, tree_by_names, tree_from_edges
from fastamr.skeleton import LAYOUTS, SkeletonLayout, get_layout

SIDES = ("left", "right")
# How files of the field call their joints, in the order of the layout.
DIALECTS: dict[str, tuple[str, str]] = {
    "openpose": (
        "openpose25",
        "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist MidHip RHip RKnee RAnkle LHip LKnee LAnkle "
        "REye LEye REar LEar LBigToe LSmallToe LHeel RBigToe RSmallToe RHeel",
    ),
    "openpose coco": (
        "openpose18",
        "Nose Neck RShoulder RElbow RWrist LShoulder LElbow LWrist RHip RKnee RAnkle LHip LKnee LAnkle REye LEye "
        "REar LEar",
    ),
    "kinect sdk 2": (
        "ntu25",
        "SpineBase SpineMid Neck Head ShoulderLeft ElbowLeft WristLeft HandLeft ShoulderRight ElbowRight "
        "WristRight HandRight HipLeft KneeLeft AnkleLeft FootLeft HipRight KneeRight AnkleRight FootRight "
        "SpineShoulder HandTipLeft ThumbLeft HandTipRight ThumbRight",
    ),
    "kinect sdk 2, with the enumeration": (
        "ntu25",
        "JointType_SpineBase JointType_SpineMid JointType_Neck JointType_Head JointType_ShoulderLeft "
        "JointType_ElbowLeft JointType_WristLeft JointType_HandLeft JointType_ShoulderRight JointType_ElbowRight "
        "JointType_WristRight JointType_HandRight JointType_HipLeft JointType_KneeLeft JointType_AnkleLeft "
        "JointType_FootLeft JointType_HipRight JointType_KneeRight JointType_AnkleRight JointType_FootRight "
        "JointType_SpineShoulder JointType_HandTipLeft JointType_ThumbLeft JointType_HandTipRight "
        "JointType_ThumbRight",
    ),
    "kinect sdk 1": (
        "kinect20",
        "HipCenter Spine ShoulderCenter Head ShoulderLeft ElbowLeft WristLeft HandLeft ShoulderRight ElbowRight "
        "WristRight HandRight HipLeft KneeLeft AnkleLeft FootLeft HipRight KneeRight AnkleRight FootRight",
    ),
    "azure": (
        "azure32",
        "PELVIS SPINE_NAVAL SPINE_CHEST NECK CLAVICLE_LEFT SHOULDER_LEFT ELBOW_LEFT WRIST_LEFT HAND_LEFT "
        "HANDTIP_LEFT THUMB_LEFT CLAVICLE_RIGHT SHOULDER_RIGHT ELBOW_RIGHT WRIST_RIGHT HAND_RIGHT HANDTIP_RIGHT "
        "THUMB_RIGHT HIP_LEFT KNEE_LEFT ANKLE_LEFT FOOT_LEFT HIP_RIGHT KNEE_RIGHT ANKLE_RIGHT FOOT_RIGHT HEAD "
        "NOSE EYE_LEFT EAR_LEFT EYE_RIGHT EAR_RIGHT",
    ),
    "azure in C#": (
        "azure32",
        "Pelvis SpineNavel SpineChest Neck ClavicleLeft ShoulderLeft ElbowLeft WristLeft HandLeft HandTipLeft "
        "ThumbLeft ClavicleRight ShoulderRight ElbowRight WristRight HandRight HandTipRight ThumbRight HipLeft "
        "KneeLeft AnkleLeft FootLeft HipRight KneeRight AnkleRight FootRight Head Nose EyeLeft EarLeft EyeRight "
        "EarRight",
    ),
    "smpl": (
        "smpl24",
        "Pelvis L_Hip R_Hip Spine1 L_Knee R_Knee Spine2 L_Ankle R_Ankle Spine3 L_Foot R_Foot Neck L_Collar "
        "R_Collar Head L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hand R_Hand",
    ),
    "smpl of PHC": (
        "smpl24",
        "Pelvis L_Hip R_Hip Torso L_Knee R_Knee Spine L_Ankle R_Ankle Chest L_Toe R_Toe Neck L_Thorax R_Thorax "
        "Head L_Shoulder R_Shoulder L_Elbow R_Elbow L_Wrist R_Wrist L_Hand R_Hand",
    ),
    "h36m of MMPose": (
        "h36m17",
        "root right_hip right_knee right_foot left_hip left_knee left_foot spine thorax neck_base head "
        "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist",
    ),
    "h36m of VideoPose3D": (
        "h36m17",
        "Hip RHip RKnee RFoot LHip LKnee LFoot Spine Thorax Neck/Nose Head LShoulder LElbow LWrist RShoulder "
        "RElbow RWrist",
    ),
    "h36m with neck and nose": (
        "h36m17",
        "root RHip RKnee RAnkle LHip LKnee LAnkle torso neck nose head LShoulder LElbow LWrist RShoulder RElbow "
        "RWrist",
    ),
    "halpe": (
        "halpe26",
        "Nose LEye REye LEar REar LShoulder RShoulder LElbow RElbow LWrist RWrist LHip RHip LKnee Rknee LAnkle "
        "RAnkle Head Neck Hip LBigToe RBigToe LSmallToe RSmallToe LHeel RHeel",
    ),
    "jhmdb's own": (
        "jhmdb15",
        "neck belly face right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow right_knee "
        "left_knee right_wrist left_wrist right_ankle left_ankle",
    ),
    "jhmdb of MMPose": (
        "jhmdb15",
        "neck belly head right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow right_knee "
        "left_knee right_wrist left_wrist right_ankle left_ankle",
    ),
    "crowdpose": (
        "crowdpose14",
        "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee "
        "right_knee left_ankle right_ankle head neck",
    ),
    "posenet": (
        "coco17",
        "nose leftEye rightEye leftEar rightEar leftShoulder rightShoulder leftElbow rightElbow leftWrist "
        "rightWrist leftHip rightHip leftKnee rightKnee leftAnkle rightAnkle",
    ),
    "glued": (
        "coco17",
        "nose leye reye lear rear lshoulder rshoulder lelbow relbow lwrist rwrist lhip rhip lknee rknee lankle "
        "rankle",
    ),
    "mediapipe hand": (
        "hand21",
        "WRIST THUMB_CMC THUMB_MCP THUMB_IP THUMB_TIP INDEX_FINGER_MCP INDEX_FINGER_PIP INDEX_FINGER_DIP "
        "INDEX_FINGER_TIP MIDDLE_FINGER_MCP MIDDLE_FINGER_PIP MIDDLE_FINGER_DIP MIDDLE_FINGER_TIP RING_FINGER_MCP "
        "RING_FINGER_PIP RING_FINGER_DIP RING_FINGER_TIP PINKY_MCP PINKY_PIP PINKY_DIP PINKY_TIP",
    ),
    "short hand": (
        "hand21",
        "wrist thumb1 thumb2 thumb3 thumb4 index1 index2 index3 index4 middle1 middle2 middle3 middle4 ring1 "
        "ring2 ring3 ring4 pinky1 pinky2 pinky3 pinky4",
    ),
    "left hand": (
        "hand21",
        "left_wrist left_thumb1 left_thumb2 left_thumb3 left_thumb4 left_forefinger1 left_forefinger2 "
        "left_forefinger3 left_forefinger4 left_middle_finger1 left_middle_finger2 left_middle_finger3 "
        "left_middle_finger4 left_ring_finger1 left_ring_finger2 left_ring_finger3 left_ring_finger4 "
        "left_pinky_finger1 left_pinky_finger2 left_pinky_finger3 left_pinky_finger4",
    ),
    "mediapipe with the enumeration": (
        "mediapipe33",
        " ".join(f"PoseLandmark.{name.upper()}" for name in LAYOUTS["mediapipe33"].joints),
    ),
    "whole body of MMPose": (
        "coco_wholebody133",
        " ".join(name.replace("face_", "face-") for name in LAYOUTS["coco_wholebody133"].joints),
    ),
}  # fmt: skip
ANIMALS = [
    "L_Eye", "R_Eye", "Nose", "Neck", "Root_of_tail", "L_Shoulder", "L_Elbow", "L_F_Paw", "R_Shoulder",
    "R_Elbow", "R_F_Paw", "L_Hip", "L_Knee", "L_B_Paw", "R_Hip", "R_Knee", "R_B_Paw",
]  # fmt: skip


def spoken(names: list[str]) -> dict[str, list[str]]:
    """One set of names in the ways that people write them."""
    return {
        "upper": [name.upper() for name in names],
        "spaces": [name.replace("_", " ") for name in names],
        "camel": ["".join(word.capitalize() for word in name.split("_")) for name in names],
        "dashes": [name.replace("_", "-") for name in names],
        "side last": [re.sub(r"^(left|right)_(.*)", r"\2_\1", name) for name in names],
        "short sides": [
            re.sub(r"^(left|right)_", lambda found: found[1][0].upper() + "_", name) for name in names
        ],
    }


class TestNames:
    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_dialects(self, dialect: str) -> None:
        name, text = DIALECTS[dialect]
        found = joints_by_name(text.split(), "f")
        assert found.layout is get_layout(name)
        assert found.order == tuple(range(found.layout.num_joints))
        assert found.notes == (f"joints matched by name to layout {name}",)

    @pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in ("bandai21", "hdm31", "lsp14")])
    @pytest.mark.parametrize("way", spoken([]))
    def test_spellings(self, name: str, way: str) -> None:
        found = joints_by_name(spoken(list(get_layout(name).joints))[way], "f")
        assert found.layout is get_layout(name)
        assert found.order == tuple(range(found.layout.num_joints))

    @pytest.mark.parametrize("name", LAYOUTS)
    def test_every_layout_by_its_own_names(self, name: str) -> None:
        found = joints_by_name(get_layout(name).joints, "f")
        # Leeds Sports Pose and AI Challenger name the same points.
        assert found.layout is get_layout("aic14" if name == "lsp14" else name) or name == "lsp14"
        assert [get_layout(name).joints[place] for place in found.order] == list(found.layout.joints)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_the_order_of_named_joints_never_changes_the_result(self, data: st.DataObject) -> None:
        names = data.draw(st.sampled_from([text.split() for _, text in DIALECTS.values()] + [ANIMALS]))
        some = (
            data.draw(st.lists(st.sampled_from(names), min_size=2, unique=True))
            if data.draw(st.booleans())
            else names
        )
        order = data.draw(st.permutations(range(len(some))))
        first, second = joints_by_name(some, "f"), joints_by_name([some[place] for place in order], "f")
        points = np.random.default_rng(0).normal(size=(2, len(some), 2)).astype(np.float32)
        seen = np.ones(points.shape[:2], bool)

        def by_joint(
            found: Joints, points: np.ndarray
        ) -> tuple[str, dict[str, tuple[list[float], str | None]]]:
            coords, valid = found.take(points, seen)
            names, parents = found.layout.joints, found.layout.parents
            above = {
                joint: names[parent] if parent >= 0 else None
                for joint, parent in zip(names, parents, strict=True)
            }
            return found.layout.name, {
                joint: (coords[:, place].ravel().tolist() + valid[:, place].tolist(), above[joint])
                for place, joint in enumerate(names)
            }

        assert by_joint(first, points) == by_joint(second, points[:, list(order)])

    def test_posetrack_is_no_coco(self) -> None:
        names = list(get_layout("posetrack17").joints)
        assert joints_by_name(names, "f").layout is get_layout("posetrack17")
        asked = joints_by_name(names, "f", given="coco17")
        assert [joint for joint, place in zip(asked.layout.joints, asked.order, strict=True) if place < 0] == [
            "left_eye", "right_eye",
        ]  # fmt: skip
        assert asked.notes == (
            "joints matched by name to layout coco17",
            "joints of coco17 that the file lacks, marked as not seen: left_eye, right_eye",
            "joints of the file that coco17 lacks, left out: head_bottom, head_top",
        )

    def test_the_spine_of_one_kinect_is_not_that_of_the_other(self) -> None:
        """Names with one joint replaced are a layout of their own, not the next one by number."""
        for name in ("ntu25", "kinect20", "coco17", "h36m17"):
            names = [
                "tail_light" if joint == get_layout(name).joints[3] else joint
                for joint in get_layout(name).joints
            ]
            names = [joint.replace("tail_light", "lamp") for joint in names]
            found = joints_by_name(names, "f")
            assert found.layout.name == "own"
            assert found.layout.joints == tuple(names)
            assert "kept as a layout of their own" in found.notes[0]

    def test_most_of_a_layout_is_that_layout(self) -> None:
        names = [name for name in get_layout("mediapipe33").joints if "mouth" not in name]
        found = joints_by_name(names[::-1], "f")
        assert found.layout is get_layout("mediapipe33")
        assert found.notes[1].endswith("marked as not seen: mouth_left, mouth_right")

    def test_a_wrist_that_occurs_twice_in_halpe(self) -> None:
        names = [
            name.replace("hand_root", "wrist").replace("_", "-") for name in get_layout("halpe136").joints
        ]
        found = joints_by_name(names, "f")
        assert found.layout is get_layout("halpe136")
        assert found.order == tuple(range(136))
        with pytest.raises(ValueError, match="f: joints 'left-wrist' and 'left-wrist' have one name"):
            joints_by_name(names[1:], "f")

    @pytest.mark.parametrize("given_layout", [None, "coco17"])
    def test_two_names_of_one_joint(self, given_layout: str | None) -> None:
        with pytest.raises(
            ValueError, match="f: joints 'left_hip' and 'LHip' have one name; name each joint once"
        ):
            joints_by_name(["nose", "left_hip", "LHip"], "f", given=given_layout)

    def test_animals_are_no_people(self) -> None:
        found = joints_by_name(ANIMALS, "f")
        assert found.layout.name == "own"
        assert "those of an animal (paw, tail), no human body" in found.notes[0]
        with pytest.raises(
            ValueError, match=r"f: the joints .* are those of an animal \(paw, tail\), not of layout 'coco17'"
        ):
            joints_by_name(ANIMALS, "f", given="coco17")
        mine = SkeletonLayout.from_joints("tiger", ANIMALS, tree_by_names(ANIMALS))
        assert joints_by_name(ANIMALS, "f", given=mine).layout is mine

    def test_an_own_layout_has_a_tree(self) -> None:
        names = [
            "MidHip", "LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle", "Chest", "Neck", "HeadTop",
            "LShoulder", "RShoulder", "LElbow", "RElbow", "Tool",
        ]  # fmt: skip
        found = joints_by_name(names, "f")
        layout = found.layout
        above = {
            name: names[parent] if parent >= 0 else None
            for name, parent in zip(names, layout.parents, strict=True)
        }
        assert above == {
            "MidHip": None, "LHip": "MidHip", "RHip": "MidHip", "LKnee": "LHip", "RKnee": "RHip", "LAnkle": "LKnee",
            "RAnkle": "RKnee", "Chest": "MidHip", "Neck": "Chest", "HeadTop": "Neck", "LShoulder": "Neck",
            "RShoulder": "Neck", "LElbow": "LShoulder", "RElbow": "RShoulder", "Tool": "MidHip",
        }  # fmt: skip
        assert layout.hips == (1, 2)
        assert layout.spine == (0, 8)
        assert len(layout.pairs) == 5

    def test_names_that_only_number(self) -> None:
        assert joints_by_name([f"kp_{place}" for place in range(26)], "f").layout is get_layout("halpe26")
        assert joints_by_name([f"Joint {place + 1}" for place in range(20)][::-1], "f").order == tuple(
            range(19, -1, -1)
        )
        assert joints_by_name([str(place) for place in range(17)], "f", given="coco17").order == tuple(
            range(17)
        )
        with pytest.raises(ValueError, match="--layout coco17 or --layout h36m17 or --layout posetrack17"):
            joints_by_name([f"landmark{place}" for place in range(17)], "f")

    def test_nothing_in_common_with_the_layout_asked_for(self) -> None:
        with pytest.raises(
            ValueError, match="f: the joints a, b have no name of layout 'coco17'; .*NAME.yaml"
        ):
            joints_by_name(["a", "b"], "f", given="coco17")


class TestTrees:
    def test_by_names_as_the_built_in_layouts_hang(self) -> None:
        for name in ("sbu15", "jhmdb15", "kinect20", "h36m17"):
            layout = get_layout(name)
            parents = tree_by_names([joint.replace("shoulder_center", "thorax") for joint in layout.joints])
            limbs = [place for place, joint in enumerate(layout.joints) if re.search("left|right", joint)]
            assert [parents[place] for place in limbs] == [layout.parents[place] for place in limbs], name

    def test_coco_hangs_together(self) -> None:
        layout = get_layout("coco17")
        assert sum(parent == -1 for parent in tree_by_names(layout.joints)) == 1

    def test_unknown_names_have_no_tree(self) -> None:
        assert tree_by_names(["a", "b", "c"]) == [-1, -1, -1]

    @pytest.mark.parametrize("name", LAYOUTS)
    def test_by_bones(self, name: str) -> None:
        """The bones of a layout in any direction give its tree back, up to the root."""
        layout = get_layout(name)
        edges = [(parent, child) if child % 2 else (child, parent) for child, parent in layout.edges]
        parents = tree_from_edges(layout.num_joints, edges[::-1], layout.joints)
        assert {frozenset(edge) for edge in enumerate(parents) if edge[1] >= 0} == {
            frozenset(edge) for edge in layout.edges
        }
        assert parents.count(-1) == 1

    def test_the_bones_of_coco_have_rings(self) -> None:
        edges = "16-14 14-12 17-15 15-13 12-13 6-12 7-13 6-7 6-8 7-9 8-10 9-11 2-3 1-2 1-3 2-4 3-5 4-6 5-7"
        pairs = [tuple(int(joint) - 1 for joint in edge.split("-")) for edge in edges.split()]
        parents = tree_from_edges(17, pairs)  # type: ignore[arg-type]
        assert parents.count(-1) == 1
        SkeletonLayout("c", get_layout("coco17").joints, tuple(parents))

    def test_the_pelvis_is_the_root_and_lone_joints_are_roots(self) -> None:
        names = ["head", "neck", "hip", "foot", "ball"]
        assert tree_from_edges(5, [(0, 1), (1, 2), (2, 3)], names) == [1, 2, -1, 2, -1]
        assert tree_from_edges(5, [(0, 1), (1, 2), (2, 3), (3, 4)]) == [1, 2, -1, 2, 3]
        with pytest.raises(
            ValueError, match="bone 0-5 names a joint that there is not; expected joints 0 to 4"
        ):
            tree_from_edges(5, [(0, 5)])


class TestCount:
    @pytest.mark.parametrize(
        ("count", "name"), [(18, "openpose18"), (20, "kinect20"), (22, "smpl22"), (33, "mediapipe33"), (13, "penn13"),
                            (26, "halpe26"), (133, "coco_wholebody133"), (136, "halpe136"), (32, "azure32"), (16, "mpii16")]
    )  # fmt: skip
    def test_a_count_that_fits_one_layout(self, count: int, name: str) -> None:
        found = joints_by_count(count, 3, "f")
        assert found.layout is get_layout(name)
        assert found.notes == (
            f"{count} joints without names are taken as layout {name}; --layout says otherwise",
        )

    def test_a_count_that_fits_several(self) -> None:
        for count, names in {
            25: ("ntu25", "openpose25"),
            17: ("coco17", "h36m17"),
            21: ("bandai21", "hand21"),
        }.items():
            with pytest.raises(
                ValueError, match=f"f: {count} joints without names, which several layouts have"
            ) as error:
                joints_by_count(count, 2, "f")
            assert all(f"--layout {name}" in str(error.value) for name in names)
        assert joints_by_count(17, 2, "f", usual={17: "coco17"}).layout is get_layout("coco17")

    def test_a_count_that_fits_none(self) -> None:
        with pytest.raises(
            ValueError, match=r"f: 9 joints in 2 channels.*one of ntu25, .*NAME\.yaml.*fastamr layouts"
        ):
            joints_by_count(9, 2, "f")


class TestIndex:
    def test_counted_from_0(self) -> None:
        found = joints_by_index(list(range(20)) * 2, 3, "f")
        assert (found.layout.name, found.order) == ("kinect20", tuple(range(20)))

    def test_counted_from_1(self) -> None:
        found = joints_by_index(range(1, 21), 3, "f")
        assert (found.layout.name, found.order) == ("kinect20", tuple(range(1, 21)))
        assert "joint 0 never occurs: joints 1 to 20 are counted from 1, as 0 to 19" in found.notes
        asked = joints_by_index(range(1, 18), 2, "f", given="coco17")
        assert (asked.layout.name, asked.order) == ("coco17", tuple(range(1, 18)))
        assert asked.notes == ("joint 0 never occurs: joints 1 to 17 are counted from 1, as 0 to 16",)
        coords = np.arange(18 * 2, dtype=np.float32).reshape(1, 18, 2)
        np.testing.assert_array_equal(asked.take(coords, np.ones((1, 18), bool))[0], coords[:, 1:])

    def test_several_layouts_have_as_many(self) -> None:
        message = r"f \(joint 0 never occurs, so they are counted from 1\): 17 joints.*--layout coco17 or --layout h36m17"
        with pytest.raises(ValueError, match=message):
            joints_by_index(range(1, 18), 2, "f")
        assert joints_by_index(range(1, 18), 2, "f", usual={17: "coco17"}).order == tuple(range(1, 18))

    def test_a_joint_0_that_was_never_seen(self) -> None:
        """As many joints as one layout has with joint 0, and none without it."""
        found = joints_by_index(range(1, 133), 2, "f")
        assert found.layout.name == "coco_wholebody133"
        assert found.order == (-1, *range(1, 133))
        assert "marked as not seen: nose" in found.notes[-1]
        asked = joints_by_index(range(1, 17), 2, "f", given="coco17")
        assert asked.order == (-1, *range(1, 17))

    def test_joints_that_never_occur(self) -> None:
        found = joints_by_index([place for place in range(20) if place not in (4, 9)], 3, "f")
        assert [place for place, other in enumerate(found.order) if other < 0] == [4, 9]
        assert found.notes[-1].endswith("marked as not seen: shoulder_left, elbow_right")

    @pytest.mark.parametrize(
        ("indices", "layout", "message"),
        [
            ([], None, "f: joints are numbered , expected 0"),
            ([-1, 0], None, "f: joints are numbered -1, 0, expected 0"),
            (range(18), "coco17", "f: joint 17, but layout 'coco17' has joints 0 to 16"),
            (range(1, 19), "coco17", "f: joint 18, but layout 'coco17' has joints 0 to 16"),
            (range(9), None, "f: 9 joints in 2 channels"),
        ],
    )
    def test_refused(self, indices: list[int], layout: str | None, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            joints_by_index(indices, 2, "f", given=layout)


def test_canonical_names() -> None:
    for name in ("LShoulder", "l_shoulder", "shoulder_l", "ShoulderLeft", "LEFT_SHOULDER", "left shoulder", "lshoulder",
                 "Left-Shoulder", "leftshoulder", "shoulder.left", "L.Shoulder"):  # fmt: skip
        assert canonical(name) == "leftshoulder", name
    for name, plain in {
        "head_bottom": "headbottom", "left_eye": "lefteye", "lfemur": "lfemur", "root": "root", "L": "l",
        "rib": "rib", "larm_l": "leftlarm", "tip of the left hand": "lefttipofthehand", "JointType_Head": "head",
    }.items():  # fmt: skip
        assert canonical(name) == plain, name
