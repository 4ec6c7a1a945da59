"""Skeletons of animation software, whose joints are named after the bones that begin in them.

There ``LeftArm`` is the joint at the shoulder and ``LeftHand`` the one at the wrist (BVH files of Mixamo, LAFAN1,
CMU's conversion, Rokoko, 3ds Max); elsewhere ``left_hand`` is the hand. The legs tell which custom a skeleton follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_PREFIXES = {"bip", "bip001", "character"}

_LIMBS = {
    "hip": ("upleg", "thigh", "upperleg"),
    "knee": ("leg", "lowleg", "lowerleg", "shin", "calf"),
    "ankle": ("foot",),
    "foot": ("toe", "toes", "toebase", "ball"),
    "collar": ("shoulder", "collar", "clavicle"),
    "shoulder": ("arm", "uparm", "upperarm"),
    "elbow": ("forearm", "lowarm", "lowerarm"),
    "wrist": ("hand",),
}
_TRUNK = {"hips": "pelvis", "hip": "pelvis", "pelvis": "pelvis", "neck": "neck", "head": "head"}
# From the pelvis up; which part a joint is depends on how many there are.
_SPINE = ("lowerback", "abdomen", "spine", "spine1", "spine2", "spine3", "chest", "chest2", "upperchest")
_SPINE_PARTS = {1: ("spine",), 2: ("spine", "upper_spine"), 3: ("lower_spine", "spine", "upper_spine")}


def bone_parts(joints: Sequence[str]) -> dict[str, str]:
    """Return the part of the body that each joint is, for a skeleton whose joints are named after bones.

    Args:
        joints: the names of the joints.

    Returns:
        Parts by joint, as in :data:`fastamr.layouts.PARTS`, of the joints that have one; nothing for a skeleton of
        another custom.
    """
    names = {joint: _split(joint) for joint in joints}
    found = {side_and_rest: joint for joint, side_and_rest in names.items()}
    for side in ("left", "right"):
        for part in ("hip", "knee"):
            if not any((side, bone) in found for bone in _LIMBS[part]):
                return {}
    parts = {
        found[side, bone]: f"{side}_{part}"
        for side in ("left", "right")
        for part, bones in _LIMBS.items()
        for bone in bones
        if (side, bone) in found
    }
    parts |= {found["", name]: part for name, part in _TRUNK.items() if ("", name) in found}
    spine = [found["", name] for name in _SPINE if ("", name) in found]
    return parts | dict(zip(spine, _SPINE_PARTS.get(len(spine), ()), strict=False))


def _split(joint: str) -> tuple[str, str]:
    """Return the side of a joint, or "", and the rest of its name in lower case."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", joint)]
    while words and (words[0] in _PREFIXES or words[0].isdecimal()):
        words.pop(0)
    sides = [word for word in words if word in _SIDES]
    rest = "".join(word for word in words if word not in _SIDES)
    return (_SIDES[sides[0]] if len(sides) == 1 else "", rest)
