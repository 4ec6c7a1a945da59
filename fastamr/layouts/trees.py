"""The trees of the built-in skeleton layouts."""

from __future__ import annotations

from .regions import face_tree, hand_tree

# The 17 points of COCO begin the whole-body layouts, the 26 of Halpe its larger one.
_COCO17 = """
    nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<nose right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
    left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee
"""
_HALPE26 = """
    nose<neck left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    left_shoulder<neck right_shoulder<neck left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow left_hip<hip right_hip<hip
    left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee
    head<neck neck<hip hip left_big_toe<left_ankle right_big_toe<right_ankle
    left_small_toe<left_big_toe right_small_toe<right_big_toe left_heel<left_ankle right_heel<right_ankle
"""
_SMPL22 = """
    pelvis left_hip<pelvis right_hip<pelvis spine1<pelvis
    left_knee<left_hip right_knee<right_hip spine2<spine1
    left_ankle<left_knee right_ankle<right_knee spine3<spine2 left_foot<left_ankle right_foot<right_ankle
    neck<spine3 left_collar<spine3 right_collar<spine3 head<neck left_shoulder<left_collar
    right_shoulder<right_collar left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow
"""

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
    "coco17": _COCO17,
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
    "smpl22": _SMPL22,
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
    # MediaPipe Pose (BlazePose). Its connections have rings: the tree is rooted in the nose, as COCO's.
    "mediapipe33": """
        nose left_eye_inner<nose left_eye<left_eye_inner left_eye_outer<left_eye
        right_eye_inner<nose right_eye<right_eye_inner right_eye_outer<right_eye
        left_ear<left_eye_outer right_ear<right_eye_outer mouth_left<nose mouth_right<nose
        left_shoulder<nose right_shoulder<nose left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_pinky<left_wrist right_pinky<right_wrist
        left_index<left_wrist right_index<right_wrist left_thumb<left_wrist right_thumb<right_wrist
        left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip
        left_ankle<left_knee right_ankle<right_knee left_heel<left_ankle right_heel<right_ankle
        left_foot_index<left_heel right_foot_index<right_heel
    """,
    # Halpe-FullBody without face and hands (AlphaPose, RTMPose): COCO's points, then head, neck, hip and feet.
    "halpe26": _HALPE26,
    "halpe136": _HALPE26 + face_tree() + hand_tree("left_") + hand_tree("right_"),
    # COCO-WholeBody (DWPose, RTMW): COCO's points, feet, face, hands.
    "coco_wholebody133": _COCO17
    + """
        left_big_toe<left_ankle left_small_toe<left_big_toe left_heel<left_ankle
        right_big_toe<right_ankle right_small_toe<right_big_toe right_heel<right_ankle
    """
    + face_tree()
    + hand_tree("left_")
    + hand_tree("right_"),
    # Azure Kinect body tracking (also Orbbec), with the parents of its documentation.
    "azure32": """
        pelvis spine_navel<pelvis spine_chest<spine_navel neck<spine_chest
        clavicle_left<spine_chest shoulder_left<clavicle_left elbow_left<shoulder_left wrist_left<elbow_left
        hand_left<wrist_left handtip_left<hand_left thumb_left<wrist_left
        clavicle_right<spine_chest shoulder_right<clavicle_right elbow_right<shoulder_right wrist_right<elbow_right
        hand_right<wrist_right handtip_right<hand_right thumb_right<wrist_right
        hip_left<pelvis knee_left<hip_left ankle_left<knee_left foot_left<ankle_left
        hip_right<pelvis knee_right<hip_right ankle_right<knee_right foot_right<ankle_right
        head<neck nose<head eye_left<head ear_left<head eye_right<head ear_right<head
    """,
    # SMPL with its two hand joints.
    "smpl24": _SMPL22 + "left_hand<left_wrist right_hand<right_wrist",
    # One hand: OneHand10K, FreiHAND, MediaPipe Hands. It has no hips and no trunk.
    "hand21": hand_tree(""),
    # Penn Action.
    "penn13": """
        head left_shoulder<head right_shoulder<head left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
        left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee
    """,
    # JHMDB, with the names of its own page.
    "jhmdb15": """
        neck<belly belly face<neck right_shoulder<neck left_shoulder<neck right_hip<belly left_hip<belly
        right_elbow<right_shoulder left_elbow<left_shoulder right_knee<right_hip left_knee<left_hip
        right_wrist<right_elbow left_wrist<left_elbow right_ankle<right_knee left_ankle<left_knee
    """,
    # MPII Human Pose.
    "mpii16": """
        right_ankle<right_knee right_knee<right_hip right_hip<pelvis left_hip<pelvis left_knee<left_hip
        left_ankle<left_knee pelvis thorax<pelvis upper_neck<thorax head_top<upper_neck
        right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<thorax
        left_shoulder<thorax left_elbow<left_shoulder left_wrist<left_elbow
    """,
    # PoseTrack 2018: COCO's points with head_bottom (the upper neck) and head_top in place of the eyes.
    "posetrack17": """
        nose<head_bottom head_bottom head_top<nose left_ear<nose right_ear<nose
        left_shoulder<head_bottom right_shoulder<head_bottom
        left_elbow<left_shoulder right_elbow<right_shoulder left_wrist<left_elbow right_wrist<right_elbow
        left_hip<left_shoulder right_hip<right_shoulder left_knee<left_hip right_knee<right_hip
        left_ankle<left_knee right_ankle<right_knee
    """,
    # CrowdPose.
    "crowdpose14": """
        left_shoulder<neck right_shoulder<neck left_elbow<left_shoulder right_elbow<right_shoulder
        left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
        left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee top_head<neck neck
    """,
    # AI Challenger.
    "aic14": """
        right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
        left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
        right_hip<right_shoulder right_knee<right_hip right_ankle<right_knee
        left_hip<left_shoulder left_knee<left_hip left_ankle<left_knee head_top<neck neck
    """,
    # Leeds Sports Pose.
    "lsp14": """
        right_ankle<right_knee right_knee<right_hip right_hip<right_shoulder left_hip<left_shoulder
        left_knee<left_hip left_ankle<left_knee right_wrist<right_elbow right_elbow<right_shoulder
        right_shoulder<neck left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow neck head_top<neck
    """,
    # The parts of a body that sensors and key point models find: the layout of models that take any skeleton.
    "body": """
        pelvis lower_spine<pelvis spine<lower_spine upper_spine<spine shoulder_center<upper_spine
        neck<shoulder_center head<neck head_top<head nose<head
        left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye
    """
    + "".join(
        f"""
        {side}_collar<shoulder_center {side}_shoulder<{side}_collar {side}_elbow<{side}_shoulder
        {side}_wrist<{side}_elbow {side}_hand<{side}_wrist {side}_hand_tip<{side}_hand {side}_thumb<{side}_hand
        {side}_hip<pelvis {side}_knee<{side}_hip {side}_ankle<{side}_knee
        {side}_heel<{side}_ankle {side}_foot<{side}_ankle {side}_big_toe<{side}_foot
        """
        for side in ("left", "right")
    ),
}
"""``joint<parent`` in the order of the coordinates, the root without ``<``, by layout."""
