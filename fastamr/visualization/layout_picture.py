"""A skeleton layout as a picture: a person who stands still, each joint with its index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files import check_folder_of
from ..layouts.body import parts_of
from ..layouts.regions import FINGERS
from ..skeleton import SkeletonLayout
from .clip import Clip, Floats
from .figures import figure_text, new_figure, picture_format, save_figure
from .skeleton_drawing import Stage

# Where a part of a standing person lies: x to the person's left and y up, metres; sided parts are those of the left.
_MIDDLE = {
    "pelvis": (0, 0.95), "lower_spine": (0, 1.07), "spine": (0, 1.20), "upper_spine": (0, 1.33),
    "shoulder_center": (0, 1.44), "neck": (0, 1.50), "upper_neck": (0, 1.55), "head": (0, 1.65), "head_top": (0, 1.80),
    "nose": (0, 1.66), "wrist": (0, 0),
}  # fmt: skip
_LEFT = {
    "eye": (0.04, 1.70), "eye_inner": (0.02, 1.70), "eye_outer": (0.06, 1.70), "ear": (0.09, 1.68),
    "mouth": (0.035, 1.60), "collar": (0.07, 1.43), "shoulder": (0.19, 1.42), "elbow": (0.31, 1.18),
    "forearm": (0.38, 1.08), "wrist": (0.45, 0.98), "hand": (0.48, 0.92), "hand_root": (0.455, 0.97),
    "hand_tip": (0.54, 0.80), "thumb": (0.43, 0.87),
    "hip": (0.10, 0.93), "knee": (0.12, 0.52), "ankle": (0.13, 0.11), "heel": (0.11, 0.04), "foot": (0.16, 0.04),
    "big_toe": (0.17, 0.00), "small_toe": (0.23, 0.02),
}  # fmt: skip
# The middle and the right half of the 68 points of a face.
_FACE = {
    **{point: (-0.085 * np.cos(np.pi * point / 16), 1.69 - 0.13 * np.sin(np.pi * point / 16)) for point in range(9)},
    17: (-0.076, 1.73), 18: (-0.064, 1.742), 19: (-0.05, 1.746), 20: (-0.036, 1.743), 21: (-0.022, 1.735),
    27: (0, 1.705), 28: (0, 1.69), 29: (0, 1.675), 30: (0, 1.655), 31: (-0.02, 1.648), 32: (-0.01, 1.644),
    33: (0, 1.642), 36: (-0.06, 1.70), 37: (-0.047, 1.708), 38: (-0.033, 1.708), 39: (-0.02, 1.70), 40: (-0.033, 1.693),
    41: (-0.047, 1.693), 48: (-0.035, 1.60), 49: (-0.023, 1.609), 50: (-0.01, 1.613), 51: (0, 1.611), 57: (0, 1.584),
    58: (-0.012, 1.586), 59: (-0.025, 1.592), 60: (-0.028, 1.60), 61: (-0.012, 1.604), 62: (0, 1.604), 66: (0, 1.594),
    67: (-0.012, 1.594),
}  # fmt: skip
# How a finger leaves its hand's root: angle to the line of the palm in degrees, and the distances of its four points.
_FINGERS = {
    "thumb": (-50.0, (0.03, 0.055, 0.08, 0.10)),
    "forefinger": (-16.0, (0.085, 0.12, 0.14, 0.16)),
    "middle_finger": (-3.0, (0.088, 0.13, 0.155, 0.175)),
    "ring_finger": (10.0, (0.083, 0.12, 0.145, 0.165)),
    "pinky_finger": (23.0, (0.078, 0.105, 0.122, 0.14)),
}
# Joints a panel numbers; whole-body layouts have panels of their own for the face and the hands.
_REGIONS = {"face": "face_", "left hand": "left_hand_root", "right hand": "right_hand_root"}


def standing_pose(layout: SkeletonLayout) -> Floats:
    """Return where the joints of a standing person lie, for pictures.

    A joint that is no known part of a body lies beside its parent.

    Returns:
        ``(V, 2)`` float32: x to the viewer's right (the person's left), y up, about metres.
    """
    parts = parts_of(layout)
    known = {place: _part_position(parts[joint]) for place, joint in enumerate(layout.joints)}
    found = {place: point for place, point in known.items() if point is not None}
    waiting = [place for place in range(layout.num_joints) if place not in found]
    while waiting:
        ready = [place for place in waiting if layout.parents[place] in found or layout.parents[place] == -1]
        for number, place in enumerate(ready):
            x, y = found.get(layout.parents[place], (0.6 + 0.1 * number, 1.0))
            found[place] = (x + 0.05 * (1 + number // 2) * (-1) ** number, y - 0.06)
        waiting = [place for place in waiting if place not in found]
    return np.array([found[place] for place in range(layout.num_joints)], dtype=np.float32)


def _part_position(part: str) -> tuple[float, float] | None:
    side, _, rest = part.partition("_")
    if side in ("left", "right"):
        point = _left_position(rest)
        return point if point is None or side == "left" else (-point[0], point[1])
    if part in _MIDDLE:
        return _MIDDLE[part]
    if part.startswith("face_"):
        return _FACE.get(int(part.removeprefix("face_")))
    return _finger_position(part, (0.0, 0.0), (0.0, 1.0))


def _left_position(rest: str) -> tuple[float, float] | None:
    if rest in _LEFT:
        return _LEFT[rest]
    if rest.startswith("face_"):
        x, y = _FACE[int(rest.removeprefix("face_"))]
        return -x, y
    return _finger_position(rest, _LEFT["hand_root"], (0.37, -0.93))


def _finger_position(
    part: str, root: tuple[float, float], palm: tuple[float, float]
) -> tuple[float, float] | None:
    finger, _, number = part.rpartition("_")
    if finger not in FINGERS or number not in ("1", "2", "3", "4"):
        return None
    angle, distances = _FINGERS[finger]
    turn, far = np.deg2rad(angle), distances[int(number) - 1]
    x = root[0] + far * (palm[0] * np.cos(turn) - palm[1] * np.sin(turn))
    y = root[1] + far * (palm[0] * np.sin(turn) + palm[1] * np.cos(turn))
    return float(x), float(y)


def draw_layout(path: str | Path, layout: SkeletonLayout) -> None:
    """Draw a layout as a standing person with the joints' indices, and the list of their names.

    Args:
        path: ``.png``, ``.svg`` or ``.pdf``.
        layout: the layout.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: another ending.
        FileNotFoundError: no folder to write into.
    """
    picture_format(path)
    check_folder_of(path)
    pose = standing_pose(layout)
    panels = _panels(layout)
    columns = -(-layout.num_joints // 34)
    figure = new_figure(4.2 + 2.4 * (len(panels) - 1) + 1.9 * columns, 6.6)
    grid = figure.add_gridspec(
        1, len(panels) + 1, width_ratios=[4.2, *[2.4] * (len(panels) - 1), 1.9 * columns]
    )
    for place, (title, joints) in enumerate(panels.items()):
        stage = Stage(
            Clip(pose[None, None] if place == 0 else _only(pose, joints)[None, None], layout), up="y"
        )
        axes: Any = stage.add_axes(figure, grid[0, place])
        stage.draw(axes, 0, size=1.0 if place == 0 else 0.8)
        axes.set_axis_off()
        if place:
            axes.set_title(title, fontsize=9)
        for joint in joints:
            axes.annotate(str(joint), pose[joint], xytext=(3, 3), textcoords="offset points", fontsize=7)
        if place == 0:
            axes.legend(handles=stage.legend(), loc="lower left", fontsize=7, frameon=False)
    names = figure.add_subplot(grid[0, len(panels)])
    names.set_axis_off()
    for column in range(columns):
        rows = range(34 * column, min(34 * (column + 1), layout.num_joints))
        text = "\n".join(f"{joint:>3} {figure_text(layout.joints[joint])}" for joint in rows)
        names.text(
            column / columns, 1, text, va="top", fontsize=7, family="monospace", transform=names.transAxes
        )
    figure.suptitle(f"{figure_text(layout.name)}: {layout.num_joints} joints", fontsize=11)
    save_figure(figure, path, dpi=110)


def _panels(layout: SkeletonLayout) -> dict[str, list[int]]:
    """Return the joints that each panel numbers: the body, then a face and the hands where the layout has them."""
    found: dict[str, list[int]] = {}
    for title, start in _REGIONS.items():
        roots = {place for place, joint in enumerate(layout.joints) if joint.startswith(start)}
        region = [place for place in range(layout.num_joints) if roots & set(_path(layout, place))]
        found |= {title: region} if region else {}
    taken = {joint for region in found.values() for joint in region}
    return {"body": [joint for joint in range(layout.num_joints) if joint not in taken], **found}


def _path(layout: SkeletonLayout, joint: int) -> list[int]:
    path = []
    while joint != -1:
        path.append(joint)
        joint = layout.parents[joint]
    return path


def _only(pose: Floats, joints: list[int]) -> Floats:
    """Return the pose without all other joints."""
    kept = np.full_like(pose, np.nan)
    kept[joints] = pose[joints]
    return kept
