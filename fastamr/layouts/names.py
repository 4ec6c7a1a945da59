"""What the name of a joint says: its side, the part of the body, and where that part hangs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_PREFIX = re.compile(
    r"^(joint_?type|k4abt_joint|k4a_?joint|joint_?id|pose_?landmark|hand_?landmark|key_?point_?type)[._ ]"
    r"|^mixamorig[:_]?"
)
# Words that a side may be glued to, as in "lshoulder" and "shoulderleft".
_WORDS = (
    "shoulder|elbow|wrist|hand|handtip|thumb|hip|knee|ankle|foot|heel|toe|bigtoe|smalltoe|eye|ear|collar|clavicle|mouth|"
    "pinky|index|footindex|forearm|thorax|palm"
)
_GLUED = re.compile(rf"(left|right|l|r)({_WORDS})|({_WORDS})(left|right)")

_UP = (
    "pelvis",
    "lower_spine",
    "spine",
    "upper_spine",
    "shoulder_center",
    "neck",
    "upper_neck",
    "head",
    "nose",
)
# Each part and what it hangs on, the nearest first.
_HANGS_ON: dict[str, tuple[str, ...]] = {
    **{part: _UP[:place][::-1] for place, part in enumerate(_UP)},
    "head_top": ("head", *_UP[:7][::-1], "nose"),
    "{side}_eye": ("nose", *_UP[:8][::-1]),
    "{side}_ear": ("{side}_eye", "nose", *_UP[:8][::-1]),
    "{side}_mouth": ("nose", *_UP[:8][::-1]),
    "{side}_collar": ("shoulder_center", "upper_spine", "neck", "spine", "lower_spine", "pelvis"),
    "{side}_shoulder": ("{side}_collar", "shoulder_center", "neck", "upper_neck", *_UP[:4][::-1]),
    "{side}_elbow": ("{side}_shoulder", "{side}_collar"),
    "{side}_forearm": ("{side}_elbow", "{side}_shoulder"),
    "{side}_wrist": ("{side}_forearm", "{side}_elbow", "{side}_shoulder"),
    "{side}_hand": ("{side}_wrist", "{side}_forearm", "{side}_elbow", "{side}_shoulder"),
    "{side}_hand_tip": ("{side}_hand", "{side}_wrist", "{side}_elbow"),
    "{side}_thumb": ("{side}_hand", "{side}_wrist", "{side}_elbow"),
    "{side}_index": ("{side}_hand", "{side}_wrist", "{side}_elbow"),
    "{side}_pinky": ("{side}_hand", "{side}_wrist", "{side}_elbow"),
    "{side}_hip": ("pelvis", "lower_spine", "spine", "{side}_shoulder"),
    "{side}_knee": ("{side}_hip",),
    "{side}_ankle": ("{side}_knee", "{side}_hip"),
    "{side}_heel": ("{side}_ankle", "{side}_foot", "{side}_knee"),
    "{side}_foot": ("{side}_ankle", "{side}_knee"),
    "{side}_big_toe": ("{side}_foot", "{side}_ankle", "{side}_knee"),
    "{side}_small_toe": ("{side}_big_toe", "{side}_foot", "{side}_ankle"),
}
# Other names of parts, without sides and separators.
_OTHER = {
    **dict.fromkeys(
        ("root", "hip", "hips", "midhip", "hipcenter", "centerhip", "spinebase", "baseofspine"), "pelvis"
    ),
    **dict.fromkeys(("thorax", "spineshoulder", "midshoulder"), "shoulder_center"),
    **dict.fromkeys(("torso", "belly", "spinemid", "middleofspine"), "spine"),
    **dict.fromkeys(("chest", "spinechest"), "upper_spine"),
    "spinenavel": "lower_spine",
    "neckbase": "neck",
    "headbottom": "upper_neck",
    **dict.fromkeys(("tophead", "topofhead"), "head_top"),
    "face": "head",
}
_OTHER_SIDED = {
    **dict.fromkeys(("clavicle", "thorax"), "collar"),
    **dict.fromkeys(("toe", "toes", "toebase"), "foot"),
    "footindex": "big_toe",
    "palm": "hand",
}


def words(name: str) -> list[str]:
    """Return the words and numbers of a name in lower case; ``LBigToe`` is ``l``, ``big``, ``toe``."""
    text = str(name).strip()
    found = _PREFIX.match(text.lower())
    text = text[found.end() :] if found else text
    split = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+", text)
    return [word.lower() for word in split]


def canonical(name: str) -> str:
    """Return a joint's name without case and separators, its side first: ``LShoulder`` is ``leftshoulder``."""
    side, rest = _sided(name)
    return side + rest


def _sided(name: str) -> tuple[str, str]:
    """Return the side, ``""`` where there is none, and the rest without separators."""
    found = words(name)
    places = [place for place, word in enumerate(found) if word in _SIDES]
    if len(places) == 1 and len(found) > 1:
        return _SIDES[found.pop(places[0])], "".join(found)
    text = "".join(found)
    glued = _GLUED.fullmatch(text)
    if glued and not places:
        return _SIDES[glued[1] or glued[4]], glued[2] or glued[3]
    return "", text


def body_part(name: str) -> str | None:
    """Return the part of the body that a joint of any skeleton is by its name, ``"left_knee"``, or None."""
    side, rest = _sided(name)
    for part in _HANGS_ON:
        if part.startswith("{side}_") == bool(side) and part.removeprefix("{side}_").replace("_", "") == rest:
            return part.replace("{side}", side)
    if side:
        return f"{side}_{_OTHER_SIDED[rest]}" if rest in _OTHER_SIDED else None
    return _OTHER.get(rest)


def body_parts(names: Sequence[str]) -> dict[int, str]:
    """Return the parts that joints are by their names, each part once, by the joints' places.

    Of two names of one part the first one of the alphabet is it, whatever their order.
    """
    found: dict[str, int] = {}
    for place in sorted(range(len(names)), key=lambda place: canonical(names[place])):
        part = body_part(names[place])
        if part is not None:
            found.setdefault(part, place)
    return {place: part for part, place in found.items()}


def tree_by_names(names: Sequence[str]) -> list[int]:
    """Return the parent of each joint as its name tells, ``-1`` for a root.

    A joint hangs on the nearest part of the body that is there; a joint with an unknown name hangs on the root. Where
    fewer than two names are known, no joint has a parent.
    """
    parts = body_parts(names)
    if len(parts) < 2:
        return [-1] * len(names)
    places = {part: place for place, part in parts.items()}
    outwards = [part.replace("{side}", side) for part in _HANGS_ON for side in ("left", "right")]
    root = next(places[part] for part in outwards if part in places)
    return [-1 if place == root else _parent(parts.get(place), places, root) for place in range(len(names))]


def _parent(part: str | None, places: Mapping[str, int], root: int) -> int:
    if part is None:
        return root
    side = part.partition("_")[0]
    general = part.replace(side, "{side}", 1) if side in ("left", "right") else part
    options = (option.replace("{side}", side) for option in _HANGS_ON[general])
    return next((places[option] for option in options if option in places), root)


def tree_from_edges(
    count: int, edges: Sequence[tuple[int, int]], names: Sequence[str] | None = None
) -> list[int]:
    """Return the parent of each joint of a skeleton that is given by its bones, ``-1`` for a root.

    The root is the joint of the pelvis where the names tell one, else the middle of the graph: the joint from which the
    farthest one is nearest. Bones that close a ring are left out; joints without a bone are roots of their own.

    Args:
        count: number of joints.
        edges: pairs of joints that a bone connects, counted from 0.
        names: the joints' names.

    Raises:
        ValueError: a bone names a joint that there is not.
    """
    near: list[list[int]] = [[] for _ in range(count)]
    for one, other in edges:
        if not (0 <= one < count and 0 <= other < count):
            raise ValueError(
                f"bone {one}-{other} names a joint that there is not; expected joints 0 to {count - 1}"
            )
        if one != other:
            near[one].append(other)
            near[other].append(one)
    reach = {joint: _distances(joint, near) for joint in range(count)}
    named = {part: place for place, part in body_parts(names or ()).items()}
    pelvis = next((named[part] for part in ("pelvis", "lower_spine", "spine") if part in named), -1)
    order = sorted(
        range(count),
        key=lambda joint: (joint != pelvis, -len(reach[joint]), max(reach[joint].values()), joint),
    )
    parents: dict[int, int] = {}
    for root in order:
        if root in parents:
            continue
        parents[root] = -1
        waiting = [root]
        for joint in waiting:
            for other in near[joint]:
                if other not in parents:
                    parents[other] = joint
                    waiting.append(other)
    return [parents[joint] for joint in range(count)]


def _distances(start: int, near: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return how many bones away each joint is that can be reached."""
    found, waiting = {start: 0}, [start]
    for joint in waiting:
        for other in near[joint]:
            if other not in found:
                found[other] = found[joint] + 1
                waiting.append(other)
    return found
