"""Whether people stand in the image: where they do not, y may grow upwards, or stand before x."""

from __future__ import annotations

import numpy as np

from ....layouts.names import body_parts
from ....skeleton import SkeletonLayout

_UPPER = {"nose", "head", "neck", "shoulder_center", "left_shoulder", "right_shoulder"}
_LOWER = {"left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"}
_CLEAR = 0.8
"""So much of the way from the shoulders to the legs must lie along an axis, in most poses (choice)."""


def upright_notes(coords: np.ndarray, seen: np.ndarray, layout: SkeletonLayout) -> tuple[str, ...]:
    """Return the note about 2-D bodies that hang head down or lie on their side in most poses.

    Args:
        coords: ``(n, V, 2)``.
        seen: ``(n, V)`` bool.
        layout: names the joints.
    """
    parts = body_parts(layout.joints)
    middles, there = [], np.ones(len(coords), dtype=bool)
    for wanted in (_UPPER, _LOWER):
        joints = [place for place, part in parts.items() if part in wanted]
        known = seen[:, joints]
        total = np.where(known[..., None], coords[:, joints], 0).sum(axis=1)
        middles.append(total / np.maximum(known.sum(axis=1), 1)[:, None])
        there &= known.any(axis=1)
    down = (middles[1] - middles[0])[there]
    lengths = np.linalg.norm(down, axis=1)
    if not len(down) or not lengths.any():
        return ()
    x, y = np.median(down[lengths > 0] / lengths[lengths > 0, None], axis=0)
    if y < -_CLEAR:
        return (
            "heads are below the legs in most poses: where y grows upwards, as in Apple's Vision, add --preprocess "
            "flip:axes=y",
        )
    if abs(x) > _CLEAR:
        return (
            "bodies lie on their side in most poses: if nobody lies, y stands before x in the file, as in MoveNet's "
            "arrays; write x first",
        )
    return ()
