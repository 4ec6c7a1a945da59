"""Which part of the body each joint of a built-in layout is."""

from __future__ import annotations

from .regions import face_parts

PARTS: dict[str, str] = {
    "ntu25": "base_of_spine=pelvis middle_of_spine=spine spine=shoulder_center",
    "kinect20": "hip_center=pelvis",
    "coco17": "",
    "openpose18": "neck=shoulder_center",
    "openpose25": "neck=shoulder_center mid_hip=pelvis",
    "smpl22": "spine1=lower_spine spine2=spine spine3=upper_spine",
    "h36m17": "thorax=shoulder_center",
    "sbu15": "neck=shoulder_center torso=spine",
    "bandai21": """
        Hips=pelvis Chest=upper_spine
        Shoulder_L=left_collar UpperArm_L=left_shoulder LowerArm_L=left_elbow Hand_L=left_wrist
        Shoulder_R=right_collar UpperArm_R=right_shoulder LowerArm_R=right_elbow Hand_R=right_wrist
        UpperLeg_L=left_hip LowerLeg_L=left_knee Foot_L=left_ankle Toes_L=left_foot
        UpperLeg_R=right_hip LowerLeg_R=right_knee Foot_R=right_ankle Toes_R=right_foot
    """,
    "hdm31": """
        root=pelvis root_@_lowerback=lower_spine lowerback_@_upperback=spine upperback_@_thorax=shoulder_center
        thorax_@_lowerneck=neck lowerneck_@_upperneck=upper_neck upperneck_@_head=head
        root_@_lhipjoint=left_hip lhipjoint_@_lfemur=left_knee lfemur_@_ltibia=left_ankle ltibia_@_lfoot=left_foot
        lfoot_@_ltoes=left_big_toe thorax_@_lclavicle=left_shoulder lclavicle_@_lhumerus=left_elbow
        lhumerus_@_lradius=left_forearm lradius_@_lwrist=left_wrist lwrist_@_lhand=left_hand
        lhand_@_lfingers=left_hand_tip lwrist_@_lthumb=left_thumb
        root_@_rhipjoint=right_hip rhipjoint_@_rfemur=right_knee rfemur_@_rtibia=right_ankle rtibia_@_rfoot=right_foot
        rfoot_@_rtoes=right_big_toe thorax_@_rclavicle=right_shoulder rclavicle_@_rhumerus=right_elbow
        rhumerus_@_rradius=right_forearm rradius_@_rwrist=right_wrist rwrist_@_rhand=right_hand
        rhand_@_rfingers=right_hand_tip rwrist_@_rthumb=right_thumb
    """,
    # The points of MediaPipe's hands are knuckles: the first of pinky and index, the second of the thumb.
    "mediapipe33": """
        left_pinky=left_pinky_finger_1 left_index=left_forefinger_1 left_thumb=left_thumb_3 left_foot_index=left_big_toe
        right_pinky=right_pinky_finger_1 right_index=right_forefinger_1 right_thumb=right_thumb_3
        right_foot_index=right_big_toe
    """,
    "halpe26": "head=head_top hip=pelvis",
    "halpe136": "head=head_top hip=pelvis " + face_parts(),
    "coco_wholebody133": face_parts(),
    "azure32": """
        spine_navel=lower_spine spine_chest=upper_spine clavicle_left=left_collar clavicle_right=right_collar
        handtip_left=left_hand_tip handtip_right=right_hand_tip
    """,
    "smpl24": "spine1=lower_spine spine2=spine spine3=upper_spine",
    "hand21": "",
    "penn13": "",
    "jhmdb15": "belly=spine face=head",
    "mpii16": "thorax=shoulder_center",
    "posetrack17": "head_bottom=upper_neck",
    "crowdpose14": "top_head=head_top",
    "lsp14": "",
    "aic14": "",
    "body": "",
}
"""``joint=part`` for the joints whose own name is not that of the part of the body which they are, by layout.

The part of a joint is where it lies, whatever it is called: the joint ``spine`` of ntu25 lies between the shoulders
(``shoulder_center``), that of kinect20 in the middle of the trunk; OpenPose's ``neck`` is by definition the point
between the shoulders; a BVH file's hand begins at the wrist. The positions of the joints of bandai21 and hdm31
were measured on the data sets (a standing body), since the bones' names say little about them.
"""
