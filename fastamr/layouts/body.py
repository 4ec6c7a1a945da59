"""Which part of the body each joint of a layout is, and to which region of the body it belongs."""

from __future__ import annotations

import re

from ..skeleton import LAYOUTS, SkeletonLayout
from .bone_names import bone_parts
from .names import body_part
from .parts import PARTS

__all__ = ["REGIONS", "parts_of", "regions_of"]

REGIONS = ("trunk", "head", "left_arm", "right_arm", "left_leg", "right_leg")
"""The regions of a body, in the order in which pooled features hold them."""

_TRUNK = {"pelvis", "lower_spine", "spine", "upper_spine", "shoulder_center", "collar"}
_HEAD = {"neck", "upper_neck", "head", "head_top", "nose", "eye", "ear", "mouth"}
_LEG = {"hip", "knee", "ankle", "heel", "foot", "big_toe", "small_toe"}
_ARM = {"shoulder", "elbow", "forearm", "wrist", "hand", "hand_tip", "hand_root", "thumb", "index", "pinky"}
_FINGER = re.compile(r"(thumb|forefinger|middle_finger|ring_finger|pinky_finger)_\d")
_FACE = re.compile(r"face_\d+|eye_(inner|outer)|mouth(_.*)?")


def parts_of(layout: SkeletonLayout) -> dict[str, str]:
    """Return the part of the body that each joint is, by joint.

    A joint of a layout that is not built in is the part whose name it bears, whatever the case, the separators and the
    place of ``left`` and ``right`` (or ``L`` and ``R``), or another name of which it bears (``MidHip``); a name that no
    rule knows is a part of its own. Skeletons of animation software name joints after bones
    (:mod:`fastamr.layouts.bone_names`).
    """
    built_in = LAYOUTS.get(layout.name)
    if built_in is not None and built_in.joints == layout.joints:
        own = dict(entry.split("=") for entry in PARTS[layout.name].split())
        return {joint: own.get(joint, _plain_part(joint)) for joint in layout.joints}
    bones = bone_parts(layout.joints)
    parts = {joint: bones.get(joint, _plain_part(joint)) for joint in layout.joints}
    for joint in layout.joints:
        part = body_part(joint)
        if joint not in bones and part is not None and part not in parts.values():
            parts[joint] = part
    return parts


def _plain_part(joint: str) -> str:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", joint)
    words = [word.lower() for word in words]
    sides = [word for word in words if word in ("left", "right")]
    return "_".join([*sides, *(word for word in words if word not in sides)])


def regions_of(layout: SkeletonLayout) -> tuple[str | None, ...]:
    """Return the region of the body that each joint belongs to, in the layout's order.

    A joint's part decides (the shoulder is of the arm, the hip of the leg, the collar of the trunk, the neck of the
    head; choices). A joint of an unknown part is of the region of its nearest known ancestor; a joint that has none is
    of no region.

    Returns:
        ``V`` names of :data:`REGIONS`, or None.
    """
    parts = parts_of(layout)
    known = [_region(parts[joint]) for joint in layout.joints]
    return tuple(_nearest(layout, known, joint) for joint in range(layout.num_joints))


def _region(part: str) -> str | None:
    """Return the region of a part by its name, or None."""
    side, _, rest = part.partition("_")
    if side not in ("left", "right"):
        side, rest = "", part
    if rest in _TRUNK:
        return "trunk"
    if rest in _HEAD or _FACE.fullmatch(rest):
        return "head"
    if side and (rest in _ARM or _FINGER.fullmatch(rest)):
        return f"{side}_arm"
    return f"{side}_leg" if side and rest in _LEG else None


def _nearest(layout: SkeletonLayout, known: list[str | None], joint: int) -> str | None:
    """Return the region of a joint or of its nearest ancestor that has one."""
    while joint != -1 and known[joint] is None:
        joint = layout.parents[joint]
    return None if joint == -1 else known[joint]
