"""Whether the third number of each joint is a score of its detection and no depth."""

from __future__ import annotations

import numpy as np

# Points in pixels spread over more than this; positions in metres or shares of an image do not (choice).
_PIXELS = 8.0
# Scores of peaks in heat maps go a little above 1 (choice); a depth of so little beside pixels is no person's.
_HIGHEST = 1.5


def looks_like_score(third: np.ndarray, xy: np.ndarray) -> bool:
    """Say whether the third channel of points is a score beside pixels.

    It is where every finite value lies within 0 and 1.5, the middle one is at most 1, at least one is above 0, and x, y
    are pixels: where the third channel is above 0 they spread over more than 8 units. A depth in metres beside x, y in
    metres is none.

    Args:
        third: ``(n, V)`` the third number of each joint; NaN = absent.
        xy: ``(n, V, 2)`` the first two.
    """
    third, xy = np.asarray(third, np.float64), np.asarray(xy, np.float64)
    finite = np.isfinite(third)
    values = third[finite]
    if (
        not len(values)
        or values.min() < 0
        or values.max() > _HIGHEST
        or values.max() == 0
        or np.median(values) > 1
    ):
        return False
    points = xy[finite & (third > 0)]
    points = points[np.isfinite(points).all(axis=-1)]
    return bool(len(points)) and float(np.ptp(points, axis=0).max()) > _PIXELS
