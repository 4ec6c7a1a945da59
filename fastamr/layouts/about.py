"""Who uses each built-in layout, and a layout as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

USERS: dict[str, tuple[str, str]] = {
    "ntu25": ("3-D", "Kinect v2: NTU RGB+D, PKU-MMD"),
    "kinect20": ("3-D", "Kinect v1: NW-UCLA"),
    "coco17": ("2-D", "COCO: HRNet, ViTPose, YOLO-pose, AlphaPose, MMPose, PYSKL"),
    "openpose18": ("2-D", "OpenPose COCO, Kinetics-Skeleton"),
    "openpose25": ("2-D", "OpenPose BODY_25"),
    "smpl22": ("3-D", "SMPL body: AMASS, HumanML3D, BABEL"),
    "h36m17": ("3-D", "Human3.6M: VideoPose3D, MotionBERT, MMPose"),
    "sbu15": ("3-D", "Kinect v1 by OpenNI: SBU Kinect Interaction"),
    "bandai21": ("3-D", "Bandai-Namco motion capture"),
    "hdm31": ("3-D", "HDM05 motion capture"),
    "mediapipe33": ("3-D, 2-D", "MediaPipe Pose (BlazePose)"),
    "halpe26": ("2-D", "Halpe body and feet: AlphaPose, RTMPose"),
    "halpe136": ("2-D", "Halpe-FullBody: AlphaPose"),
    "coco_wholebody133": ("2-D", "COCO-WholeBody: DWPose, RTMW, MMPose"),
    "azure32": ("3-D", "Azure Kinect, Orbbec"),
    "smpl24": ("3-D", "SMPL with hands: HybrIK, PHC, 3DPW"),
    "hand21": ("2-D, 3-D", "one hand: MediaPipe Hands, OneHand10K, FreiHAND"),
    "penn13": ("2-D", "Penn Action"),
    "jhmdb15": ("2-D", "JHMDB"),
    "mpii16": ("2-D", "MPII Human Pose"),
    "posetrack17": ("2-D", "PoseTrack 2018 and 2021"),
    "crowdpose14": ("2-D", "CrowdPose"),
    "aic14": ("2-D", "AI Challenger"),
    "lsp14": ("2-D", "Leeds Sports Pose"),
    "body": ("3-D, 2-D", "models of any skeleton: each joint by the part of the body that it is"),
}
"""The usual coordinates and the users, by layout."""


def tree_text(joints: Sequence[str], parents: Sequence[int]) -> str:
    """Return a tree of joints as lines of text, each joint with its index behind its parent's.

    Args:
        joints: names.
        parents: index of each joint's parent, -1 for a root.
    """
    below: dict[int, list[int]] = {joint: [] for joint in range(-1, len(joints))}
    for joint, parent in enumerate(parents):
        below[parent].append(joint)
    lines: list[str] = []

    def add(joint: int, lead: str, branch: str) -> None:
        lines.append(f"{lead}{branch}{joint} {joints[joint]}")
        deeper = lead + {"": "", "|- ": "|  ", "`- ": "   "}[branch]
        for child in below[joint]:
            add(child, deeper, "`- " if child == below[joint][-1] else "|- ")

    for root in below[-1]:
        add(root, "", "")
    return "\n".join(lines)
