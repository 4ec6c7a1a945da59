"""The trees of the built-in skeleton layouts, and which part of the body each of their joints is.

Plain text only: :mod:`fastamr.skeleton` makes :data:`~fastamr.skeleton.LAYOUTS` of it.
"""

from __future__ import annotations

TREES: dict[str, str] = {
    # Kinect v2, NTU RGB+D and PKU-MMD. The bones are those of the field's graphs (ST-GCN and its successors), in
    # which a hand's tip hangs on its thumb.
    "ntu25": """
        base_of_spine middle_of_spine<base_of_spine neck<spine head<neck
        left_shoulder<spine left_elbow<left_shoulder left_wrist<left_elbow left_hand<left_wrist
        right_shoulder<spine right_elbow<right_shoulder right_wrist<right_elbow right_hand<right_wrist
        left_hip<base_of_spine left_knee<left_hip left_ankle<left_knee left_foot<left_ankle
        right_hip<base_of_spine right_knee<right_hip right_ankle<right_knee right_foot<right_ankle
        spine<middle_of_spine left_hand_tip<left_thumb left_thumb<left_hand
        right_hand_tip<right_thumb right_thumb<right_hand
    """,
    # Kinect v1, NW-UCLA and MSR Action3D.
    "kinect20": """
        hip_center spine<hip_center shoulder_center<spine head<shoulder_center
        shoulder_left<shoulder_center elbow_left<shoulder_left wrist_left<elbow_left hand_left<wrist_left
        shoulder_right<shoulder_center elbow_right<shoulder_right wrist_right<elbow_right hand_right<wrist_right
        hip_left<hip_center knee_left<hip_left ankle_left<knee_left foot_left<ankle_left
        hip_right<hip_center knee_right<hip_right ankle_right<knee_right foot_right<ankle_right
    """,
    # COCO key points (HRNet, ViTPose, YOLO). COCO defines no tree: the one of PYSKL, rooted in the nose.
    "coco17": """
        nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
        left_shoulder<nose right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
        left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee
    """,
    # OpenPose's COCO model (also Kinetics-Skeleton): its own limbs, the hips hang on the neck.
    "openpose18": """
        nose<neck neck right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
        left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
        right_hip<neck right_knee<right_hip right_ankle<right_knee
        left_hip<neck left_knee<left_hip left_ankle<left_knee
        right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye
    """,
    # OpenPose BODY_25.
    "openpose25": """
        nose<neck neck<mid_hip right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
        left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow mid_hip
        right_hip<mid_hip right_knee<right_hip right_ankle<right_knee
        left_hip<mid_hip left_knee<left_hip left_ankle<left_knee
        right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye
        left_big_toe<left_ankle left_small_toe<left_big_toe left_heel<left_ankle
        right_big_toe<right_ankle right_small_toe<right_big_toe right_heel<right_ankle
    """,
    # SMPL's body without hands (AMASS, HumanML3D, BABEL).
    "smpl22": """
        pelvis left_hip<pelvis right_hip<pelvis spine1<pelvis
        left_knee<left_hip right_knee<right_hip spine2<spine1
        left_ankle<left_knee right_ankle<right_knee spine3<spine2 left_foot<left_ankle right_foot<right_ankle
        neck<spine3 left_collar<spine3 right_collar<spine3 head<neck left_shoulder<left_collar
        right_shoulder<right_collar left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow
    """,
    # Human3.6M, the 17 joints of the 3-D pose literature.
    "h36m17": """
        pelvis right_hip<pelvis right_knee<right_hip right_ankle<right_knee
        left_hip<pelvis left_knee<left_hip left_ankle<left_knee spine<pelvis thorax<spine neck<thorax head<neck
        left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow
        right_shoulder<thorax right_elbow<right_shoulder right_wrist<right_elbow
    """,
    # SBU Kinect Interaction: Kinect v1 seen by OpenNI, whose neck lies between the shoulders.
    "sbu15": """
        head<neck neck<torso torso left_shoulder<neck left_elbow<left_shoulder left_hand<left_elbow
        right_shoulder<neck right_elbow<right_shoulder right_hand<right_elbow
        left_hip<torso left_knee<left_hip left_foot<left_knee right_hip<torso right_knee<right_hip right_foot<right_knee
    """,
    # Bandai-Namco-Research-Motiondataset 1 and 2, optical motion capture (BVH without joint_Root).
    "bandai21": """
        Hips Spine<Hips Chest<Spine Neck<Chest Head<Neck
        Shoulder_L<Chest UpperArm_L<Shoulder_L LowerArm_L<UpperArm_L Hand_L<LowerArm_L
        Shoulder_R<Chest UpperArm_R<Shoulder_R LowerArm_R<UpperArm_R Hand_R<LowerArm_R
        UpperLeg_L<Hips LowerLeg_L<UpperLeg_L Foot_L<LowerLeg_L Toes_L<Foot_L
        UpperLeg_R<Hips LowerLeg_R<UpperLeg_R Foot_R<LowerLeg_R Toes_R<Foot_R
    """,
    # HDM05, optical motion capture (ASF/AMC): a joint is named after the bone before it and the bone that ends in it.
    "hdm31": """
        root root_@_lhipjoint<root lhipjoint_@_lfemur<root_@_lhipjoint lfemur_@_ltibia<lhipjoint_@_lfemur
        ltibia_@_lfoot<lfemur_@_ltibia lfoot_@_ltoes<ltibia_@_lfoot
        root_@_rhipjoint<root rhipjoint_@_rfemur<root_@_rhipjoint rfemur_@_rtibia<rhipjoint_@_rfemur
        rtibia_@_rfoot<rfemur_@_rtibia rfoot_@_rtoes<rtibia_@_rfoot
        root_@_lowerback<root lowerback_@_upperback<root_@_lowerback upperback_@_thorax<lowerback_@_upperback
        thorax_@_lowerneck<upperback_@_thorax lowerneck_@_upperneck<thorax_@_lowerneck
        upperneck_@_head<lowerneck_@_upperneck
        thorax_@_lclavicle<upperback_@_thorax lclavicle_@_lhumerus<thorax_@_lclavicle
        lhumerus_@_lradius<lclavicle_@_lhumerus lradius_@_lwrist<lhumerus_@_lradius lwrist_@_lhand<lradius_@_lwrist
        lhand_@_lfingers<lwrist_@_lhand lwrist_@_lthumb<lradius_@_lwrist
        thorax_@_rclavicle<upperback_@_thorax rclavicle_@_rhumerus<thorax_@_rclavicle
        rhumerus_@_rradius<rclavicle_@_rhumerus rradius_@_rwrist<rhumerus_@_rradius rwrist_@_rhand<rradius_@_rwrist
        rhand_@_rfingers<rwrist_@_rhand rwrist_@_rthumb<rradius_@_rwrist
    """,
}
"""``joint<parent`` in the order of the coordinates, the root without ``<``, by layout."""

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
}
"""``joint=part`` for the joints whose own name is not that of the part of the body which they are, by layout.

The part of a joint is where it lies, whatever it is called: the joint ``spine`` of ntu25 lies between the shoulders
(``shoulder_center``), that of kinect20 in the middle of the trunk; OpenPose's ``neck`` is by definition the point
between the shoulders; a BVH file's hand begins at the wrist. The positions of the joints of bandai21 and hdm31
were measured on the data sets (a standing body), since the bones' names say little about them.
"""
