"""Other names that files give the joints of a built-in layout, and words that no human body has."""

from __future__ import annotations

from .regions import FINGERS


def _hand_tables() -> tuple[str, ...]:
    """Return how MediaPipe and numbered names call the points of a hand."""
    short = {
        "thumb": ("thumb",),
        "forefinger": ("index", "index_finger", "fore_finger", "pointer"),
        "middle_finger": ("middle",),
        "ring_finger": ("ring",),
        "pinky_finger": ("pinky", "little", "little_finger", "small_finger"),
    }
    knuckles = dict.fromkeys(FINGERS, ("mcp", "pip", "dip", "tip")) | {"thumb": ("cmc", "mcp", "ip", "tip")}
    entries = ["wrist=hand_root"]
    for finger, others in short.items():
        for name in {finger, *others}:
            for place in range(1, 5):
                entries += [f"{finger}{place}={name}{place}"] * (name != finger)
                entries.append(f"{finger}{place}={name}_{knuckles[finger][place - 1]}")
    return (" ".join(entries),)


SYNONYMS: dict[str, tuple[str, ...]] = {
    # Kinect SDK 2.
    "ntu25": (
        """
        base_of_spine=spine_base base_of_spine=base_of_the_spine middle_of_spine=spine_mid
        middle_of_spine=middle_of_the_spine spine=spine_shoulder
        left_hand_tip=tip_of_the_left_hand right_hand_tip=tip_of_the_right_hand
        """,
    ),
    "openpose25": ("mid_hip=hip_mid",),
    "smpl22": (
        "pelvis=root",
        # HybrIK and PHC.
        """
        spine1=torso spine2=spine spine3=chest left_foot=left_toe right_foot=right_toe
        left_collar=left_thorax right_collar=right_thorax pelvis=root
        """,
    ),
    "smpl24": (
        "pelvis=root",
        """
        spine1=torso spine2=spine spine3=chest left_foot=left_toe right_foot=right_toe
        left_collar=left_thorax right_collar=right_thorax pelvis=root
        """,
    ),
    "h36m17": (
        # MMPose, VideoPose3D.
        """
        pelvis=root pelvis=hip pelvis=hips pelvis=mid_hip neck=neck_base neck=neck_nose neck=nose head=head_top
        spine=belly spine=torso left_ankle=left_foot right_ankle=right_foot
        """,
        # MotionBERT and others call the point between the shoulders the neck.
        """
        pelvis=root pelvis=hip spine=torso spine=belly thorax=neck neck=nose
        left_ankle=left_foot right_ankle=right_foot
        """,
    ),
    # MMPose calls the root of a hand the wrist, so that a wrist occurs twice.
    "halpe136": ("hip=pelvis hip=mid_hip hip=root left_hand_root=left_wrist right_hand_root=right_wrist",),
    "halpe26": ("hip=pelvis hip=mid_hip hip=root",),
    "azure32": ("spine_navel=spine_naval",),
    "hand21": _hand_tables(),
    "jhmdb15": ("face=head",),
    "mpii16": ("upper_neck=neck head_top=head head_top=top_head",),
    "posetrack17": ("head_bottom=upper_neck head_top=top_head",),
    "crowdpose14": ("top_head=head top_head=head_top",),
    "aic14": ("head_top=top_head",),
}
"""Tables of ``joint=other name``, by layout.

A table holds what is used together; in it, another name stands before the layout's own names. Two names are in one
entry only where they are the same point of the body: PoseTrack's ``head_bottom`` is no eye, and the ``spine`` of ntu25
is another point than that of kinect20.
"""

ANIMAL_WORDS = frozenset({
    "paw", "paws", "tail", "tailbase", "hoof", "hooves", "withers", "beak", "snout", "muzzle", "fetlock",
    "wing", "wings", "antenna", "foreleg", "hindleg", "midleg", "forepaw", "hindpaw", "earbase",
    "nearfrontfoot", "offfrontfoot", "nearhindfoot", "offhindfoot",
})  # fmt: skip
"""Words in names of joints that only animals have."""
