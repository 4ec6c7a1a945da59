"""What whole-body layouts share: the 68 points of a face and the 21 of a hand."""

from __future__ import annotations

from itertools import pairwise

FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
"""The five fingers in the order of the points, four points each from the palm to the tip."""

# Points of the middle of the face and of its right half, each after its parent; ``-1`` is the nose of the body.
_FACE_CHAINS = (
    "-1 8 7 6 5 4 3 2 1 0",  # jaw
    "-1 30 29 28 27 21 20 19 18 17",  # bridge of the nose, brow
    "27 39 38 37 36",  # eye
    "39 40 41",
    "30 33 32 31",  # below the nose
    "33 51 50 49 48 59 58",  # outer lips
    "51 62 61 60",  # inner lips
    "62 66 67",
    "66 57",
)
# The right half's point and the left half's.
_FACE_MIRROR = {
    **{right: 16 - right for right in range(8)},
    **{right: 43 - right for right in range(17, 22)},
    31: 35, 32: 34, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46,
    48: 54, 49: 53, 50: 52, 58: 56, 59: 55, 60: 64, 61: 63, 67: 65,
}  # fmt: skip
# Points that other layouts have, too.
_FACE_NAMED = {36: "eye_outer", 39: "eye_inner", 48: "mouth"}


def face_tree() -> str:
    """Return the tree of the 68 points of a face (300-W's order), which hangs on the joint ``nose``."""
    parents: dict[int, int] = {}
    for chain in _FACE_CHAINS:
        points = [int(point) for point in chain.split()]
        for parent, point in pairwise(points):
            parents[point] = parent
            if point in _FACE_MIRROR:
                parents[_FACE_MIRROR[point]] = _FACE_MIRROR.get(parent, parent)
    names = {-1: "nose"} | {point: f"face_{point}" for point in range(68)}
    return " " + " ".join(f"{names[point]}<{names[parents[point]]}" for point in range(68))


def face_parts() -> str:
    """Return which points of a face mirror each other, as parts of a left and a right side."""
    entries = []
    for right, left in _FACE_MIRROR.items():
        part = _FACE_NAMED.get(right, f"face_{right}")
        entries += [f"face_{right}=right_{part}", f"face_{left}=left_{part}"]
    return " ".join(entries)


def hand_tree(side: str) -> str:
    """Return the tree of a hand's 21 points.

    Args:
        side: ``"left_"`` or ``"right_"`` for a hand of a body, whose root hangs on the wrist; ``""`` for a hand alone.
    """
    root = f"{side}hand_root" if side else "wrist"
    entries = [f"{root}<{side}wrist" if side else root]
    for finger in FINGERS:
        chain = [root, *(f"{side}{finger}{place}" for place in range(1, 5))]
        entries += [f"{joint}<{parent}" for parent, joint in pairwise(chain)]
    return " " + " ".join(entries)
