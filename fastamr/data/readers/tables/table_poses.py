"""The poses of a table, whichever its form is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..common.layout_choice import Joints


@dataclass
class TablePoses:
    """Poses, in any order.

    Args:
        joints: the skeleton.
        clip: ``(n,)`` int64.
        frame: ``(n,)`` int64.
        body: ``(n,)`` int64, the body, or the place in the frame where people are not told apart.
        is_told: whether ``body`` is who it is.
        coords: ``(n, V, C)`` float32.
        valid: ``(n, V)`` bool.
        line: ``(n,)`` int64, where each begins in the file.
        body_names: the bodies, where the columns and not the rows name them.
    """

    joints: Joints
    clip: np.ndarray
    frame: np.ndarray
    body: np.ndarray
    is_told: bool
    coords: np.ndarray
    valid: np.ndarray
    line: np.ndarray
    body_names: list[str] | None = None
