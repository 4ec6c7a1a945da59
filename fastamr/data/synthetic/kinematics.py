"""Forward kinematics of a person with the 25 joints of NTU RGB+D, batched over frames.

A pose is a column of ``DOFS`` numbers (angles in radians, path and lift in metres);
:func:`forward_kinematics` turns ``F`` of them into coordinates with constant bone lengths and the lower foot
on the floor. The body faces +z, its left is +x, y is up. Only additions, multiplications and roundings are
used, which IEEE 754 fixes to the last bit: the same poses give the same coordinates on every machine.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

NUM_JOINTS = 25

# The NTU RGB+D order. A limb's two joints are (left, right).
BASE, MIDDLE, NECK, HEAD, CHEST = 0, 1, 2, 3, 20
SHOULDERS, ELBOWS, WRISTS, HANDS, TIPS, THUMBS = [4, 8], [5, 9], [6, 10], [7, 11], [21, 23], [22, 24]
HIPS, KNEES, ANKLES, FEET = [12, 16], [13, 17], [14, 18], [15, 19]

ROOT_DOFS = ("path_x", "path_z", "lift", "yaw", "pitch", "roll", "bend", "lean", "turn", "nod", "shake")
ARM_DOFS = ("elevation", "azimuth", "spin", "elbow", "wrist")
LEG_DOFS = ("hip", "spread", "knee", "ankle", "plant")
DOFS = (
    *ROOT_DOFS,
    *(f"{side}_{name}" for name in ARM_DOFS for side in ("left", "right")),
    *(f"{side}_{name}" for name in LEG_DOFS for side in ("left", "right")),
)
"""Rows of a pose array.

``path_x``, ``path_z``: where the feet's centre stands; ``lift``: height of the lower foot; ``yaw``,
``pitch``, ``roll``: the pelvis; ``bend``, ``lean``, ``turn``: the spine forward, to the right, to the left
about its axis; ``nod``, ``shake``: the head. Arm: ``elevation`` from hanging (0) to overhead (pi) in the
plane ``azimuth`` (0 forward, pi/2 outward, negative across the chest), ``spin`` about the upper arm (outward;
equal to the azimuth the elbow bends upward), ``elbow``, ``wrist``. Leg: ``hip`` forward, ``spread`` outward,
``knee``, ``ankle`` (0 keeps the sole level), ``plant``: the foot's share in keeping the body's place.
"""

DOF_ROW = {name: row for row, name in enumerate(DOFS)}
_ARM_ROWS = slice(len(ROOT_DOFS), len(ROOT_DOFS) + 2 * len(ARM_DOFS))
_LEG_ROWS = slice(_ARM_ROWS.stop, _ARM_ROWS.stop + 2 * len(LEG_DOFS))

# Shares of the stature, after Drillis and Contini (1966), adapted to where a Kinect places its joints.
BONE_SHARES = {
    "lower_spine": 0.150,
    "upper_spine": 0.135,
    "neck": 0.040,
    "head": 0.095,
    "shoulder": 0.105,
    "slope": 0.015,
    "upper_arm": 0.165,
    "forearm": 0.145,
    "palm": 0.045,
    "fingers": 0.045,
    "thumb": 0.030,
    "hip": 0.048,
    "hip_drop": 0.020,
    "thigh": 0.235,
    "shank": 0.235,
    "heel": 0.042,
    "foot": 0.075,
}
BONES = tuple(BONE_SHARES)
_BONE_ROW = {name: row for row, name in enumerate(BONES)}

_SINE = (-1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0)
_COSINE = (-1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0)


def sine_cosine(angle: Array) -> tuple[Array, Array]:
    """Sine and cosine of radians, any shape, float32; off by less than 2e-6 for angles within +-30 rad.

    Polynomials of the half angle, then one doubling. NumPy's own functions differ in the last bit between
    processors.
    """
    turns = np.rint(angle * (1 / (2 * math.pi)))
    half = (angle - turns * (2 * math.pi)) * 0.5
    square = half * half
    sine, cosine = (_horner(square, series) for series in (_SINE, _COSINE))
    sine *= half
    cosine *= sine
    cosine *= 2
    sine *= sine
    sine *= -2
    sine += 1
    return cosine, sine


def _horner(x: Array, coefficients: tuple[float, ...]) -> Array:
    total = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        total += coefficient
        total *= x
    total += coefficients[-1]
    return total


def bone_lengths(stature: Array, variation: Array) -> Array:
    """Bone lengths of ``n`` people.

    Args:
        stature: ``(n,)`` float32 metres.
        variation: ``(n, len(BONES))`` float32, the relative deviation of each bone from its usual share.

    Returns:
        ``(len(BONES), n)`` float32 metres.
    """
    shares = np.array(list(BONE_SHARES.values()), dtype=np.float32)
    return np.ascontiguousarray((stature[:, None] * shares * (1 + variation)).T)


def _turned(frame: Array, axis: int, sine: Array, cosine: Array) -> Array:
    """``frame`` (columns, xyz, ...) after a rotation about its own axis 0, 1 or 2 (x, y, z)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    result = np.empty_like(frame)
    result[axis] = frame[axis]
    np.multiply(frame[first], cosine, out=result[first])
    result[first] += frame[second] * sine
    np.multiply(frame[second], cosine, out=result[second])
    result[second] -= frame[first] * sine
    return result


def forward_kinematics(pose: Array, bones: Array) -> Array:
    """Coordinates of ``F`` poses.

    Args:
        pose: ``(len(DOFS), F)`` float32.
        bones: ``(len(BONES), F)`` float32 metres, the bone lengths of the person of each frame.

    Returns:
        ``(3, 25, F)`` float32 metres: x, y, z with the floor at y = 0.
    """
    points = np.empty((NUM_JOINTS, 3, pose.shape[1]), dtype=np.float32)
    heading, pelvis = _pelvis(pose)
    chest = _trunk(points, pose, bones, pelvis)
    sign = np.array([[1], [-1]], dtype=np.float32)
    _arms(points, pose[_ARM_ROWS].reshape(len(ARM_DOFS), 2, -1), bones, chest, sign)
    legs = pose[_LEG_ROWS].reshape(len(LEG_DOFS), 2, -1)
    _legs(points, legs, bones, heading, pelvis, sign)
    _stand(points, pose, legs[LEG_DOFS.index("plant")], bones)
    return points.transpose(1, 0, 2)


def _pelvis(pose: Array) -> tuple[Array, Array]:
    """Frames ``(3, 3, F)`` of the heading (yaw only) and of the pelvis."""
    angles = pose[DOF_ROW["yaw"] : DOF_ROW["roll"] + 1]
    (yaw_s, pitch_s, roll_s), (yaw_c, pitch_c, roll_c) = sine_cosine(angles)
    heading = np.zeros((3, 3, pose.shape[1]), dtype=np.float32)
    heading[0, 0], heading[0, 2] = yaw_c, -yaw_s
    heading[1, 1] = 1
    heading[2, 0], heading[2, 2] = yaw_s, yaw_c
    return heading, _turned(_turned(heading, 2, roll_s, roll_c), 0, pitch_s, pitch_c)


def _trunk(points: Array, pose: Array, bones: Array, pelvis: Array) -> Array:
    """Place spine, neck and head; return the chest's frame. Both spine joints take half of the bending."""
    half_sine, half_cosine = sine_cosine(pose[DOF_ROW["bend"] : DOF_ROW["turn"] + 1] * 0.5)
    frame = pelvis
    points[BASE] = 0
    for joint, parent, bone in ((MIDDLE, BASE, "lower_spine"), (CHEST, MIDDLE, "upper_spine")):
        for row, axis in enumerate((0, 2, 1)):
            frame = _turned(frame, axis, half_sine[row], half_cosine[row])
        points[joint] = points[parent] + frame[1] * bones[_BONE_ROW[bone]]
    points[NECK] = points[CHEST] + frame[1] * bones[_BONE_ROW["neck"]]
    sine, cosine = sine_cosine(pose[DOF_ROW["nod"] : DOF_ROW["shake"] + 1])
    skull = _turned(_turned(frame, 1, sine[1], cosine[1]), 0, sine[0], cosine[0])
    points[HEAD] = points[NECK] + skull[1] * bones[_BONE_ROW["head"]]
    return frame


def _arms(points: Array, arm: Array, bones: Array, chest: Array, sign: Array) -> None:
    """Place both arms; ``arm`` (len(ARM_DOFS), 2, F)."""
    elevation, azimuth, spin, elbow, wrist = arm
    outward = sign * bones[_BONE_ROW["shoulder"]]
    shoulder = chest[0][:, None] * outward - (chest[1] * bones[_BONE_ROW["slope"]])[:, None]
    points[SHOULDERS] = (points[CHEST][:, None] + shoulder).transpose(1, 0, 2)
    frame = np.broadcast_to(chest[:, :, None], (3, 3, *elbow.shape))
    for axis, angle in (
        (1, azimuth * sign),
        (0, -elevation),
        (1, (spin - azimuth) * sign),
    ):
        frame = _turned(frame, axis, *sine_cosine(angle))
    _hang(points, ELBOWS, SHOULDERS, frame, bones, "upper_arm")
    frame = _turned(frame, 0, *sine_cosine(-elbow))
    _hang(points, WRISTS, ELBOWS, frame, bones, "forearm")
    frame = _turned(frame, 0, *sine_cosine(-wrist))
    _hang(points, HANDS, WRISTS, frame, bones, "palm")
    _hang(points, TIPS, HANDS, frame, bones, "fingers")
    side = (frame[2] * 0.8 - frame[1] * 0.6) * bones[_BONE_ROW["thumb"]]
    points[THUMBS] = points[HANDS] + side.transpose(1, 0, 2)


def _legs(points: Array, leg: Array, bones: Array, heading: Array, pelvis: Array, sign: Array) -> None:
    """Place both legs; ``leg`` (len(LEG_DOFS), 2, F). A bow leaves the thighs upright."""
    hip, spread, knee, ankle, _ = leg
    outward = sign * bones[_BONE_ROW["hip"]]
    socket = pelvis[0][:, None] * outward - (pelvis[1] * bones[_BONE_ROW["hip_drop"]])[:, None]
    points[HIPS] = socket.transpose(1, 0, 2)
    frame = np.broadcast_to(heading[:, :, None], (3, 3, *hip.shape))
    frame = _turned(frame, 2, *sine_cosine(spread * sign))
    frame = _turned(frame, 0, *sine_cosine(-hip))
    _hang(points, KNEES, HIPS, frame, bones, "thigh")
    frame = _turned(frame, 0, *sine_cosine(knee))
    _hang(points, ANKLES, KNEES, frame, bones, "shank")
    frame = _turned(frame, 0, *sine_cosine(hip - knee + ankle))
    foot = frame[2] * bones[_BONE_ROW["foot"]] - frame[1] * (0.6 * bones[_BONE_ROW["heel"]])
    points[FEET] = points[ANKLES] + foot.transpose(1, 0, 2)


def _hang(
    points: Array, joints: list[int], parents: list[int], frame: Array, bones: Array, bone: str
) -> None:
    """Place a left and a right joint at a bone's length along -y of their frame ``(3, 3, 2, F)``."""
    points[joints] = points[parents] - (frame[1] * bones[_BONE_ROW[bone]]).transpose(1, 0, 2)


def _stand(points: Array, pose: Array, plant: Array, bones: Array) -> None:
    """Move each frame so that the lower foot is at ``lift`` and the planted feet's centre on the path."""
    ankles = points[ANKLES]
    low = np.minimum(ankles[:, 1] - bones[_BONE_ROW["heel"]], points[FEET][:, 1])
    points[:, 1] += pose[DOF_ROW["lift"]] - np.minimum(low[0], low[1])
    for axis, row in ((0, "path_x"), (2, "path_z")):
        points[:, axis] += pose[DOF_ROW[row]] - (ankles[0, axis] * plant[0] + ankles[1, axis] * plant[1])
