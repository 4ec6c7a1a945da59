"""Which axis of an array of motion is time, which are bodies, joints and coordinates, told by the sizes."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ..common.arrays import trim_padding

MOST_BODIES = 6
"""An axis of bodies is no longer than this (choice)."""

# By number of axes: N clips, T frames, M bodies, V joints, C coordinates. The first is the usual one.
_ORDERS = {
    2: ("TF", "VC"),
    3: ("TVC", "VTC", "VCT", "TCV", "CVT", "CTV"),
    4: ("TMVC", "MTVC", "NTVC", "CTVM", "NCTV"),
    5: ("NCTVM", "NTMVC", "NMTVC"),
}
_WORDS = {"N": "clips", "T": "frames", "M": "bodies", "V": "joints", "C": "coordinates", "F": "values"}


def to_clips(
    array: np.ndarray, where: str, counts: Collection[int], *, clips: int | None = None
) -> tuple[list[np.ndarray], list[str]]:
    """Return an array of motion as clips ``(T, M, V, C)``.

    Axes are told by their sizes: 2 to 5 coordinates, a known number of joints, few bodies. Several clips in one array
    lose the frames of zeros at their ends.

    Args:
        array: real numbers.
        where: names the array in errors.
        counts: numbers of joints that a skeleton may have.
        clips: how many clips the file says that it has; None = unknown.

    Returns:
        The clips, views where that is possible, and notes where the order of the axes is not the usual one.

    Raises:
        ValueError: no order of axes fits, or several do.
    """
    orders = _ORDERS.get(array.ndim, ())
    fitting = [order for order in orders if _fits(order, array.shape, counts, clips)]
    if array.ndim == 5 and {"NCTVM", "NMTVC"} <= set(fitting) and array.shape[1] <= 2 < array.shape[4]:
        pass  # two coordinates of three bodies, or three of two: told apart by nobody
    elif (
        array.ndim != 2
        and orders
        and (orders[0] in fitting or not fitting)
        and _has_coordinates(orders[0], array.shape, clips)
    ):
        fitting = [orders[0]]
    elif set(fitting) == {"MTVC", "CTVM"} and array.shape[3] == 3 and array.shape[0] == 2:
        fitting = ["MTVC"]  # two people in 3-D; three people in 2-D is rarer, and the note says it (choice)
    if array.ndim == 2 and "VC" not in fitting:
        return _of_rows(array, where, counts)
    if array.ndim == 3 and not fitting and _widths(array.shape[2], counts):
        flat, note = _of_rows(array.reshape(-1, array.shape[2]), where, counts)
        told = f"shape {array.shape} is read as (clips, frames, values)"
        return trim_padding(flat[0].reshape(*array.shape[:2], *flat[0].shape[1:])), [told, *note]
    if len(fitting) != 1:
        raise ValueError(
            f"{where} has shape {array.shape}, {'which may be ' if fitting else 'expected '}"
            + " or ".join(
                _shown(order) for order in fitting or _ORDERS[3][:1] + _ORDERS[4][:1] + _ORDERS[5][:1]
            )
            + "; save it as (frames, bodies, joints, coordinates)" * bool(fitting)
            + "; --layout names a skeleton of another number of joints" * (not fitting)
        )
    order = fitting[0]
    note = [f"shape {array.shape} is read as {_shown(order)}"] * (order != orders[0])
    wanted = "NTMVC" if "N" in order else "TMVC"
    moved = np.transpose(array, [order.index(axis) for axis in wanted if axis in order])
    for place, axis in enumerate(wanted):
        if axis not in order:
            moved = np.expand_dims(moved, place)
    return (trim_padding(moved) if "N" in order else [moved]), note


def _fits(order: str, shape: tuple[int, ...], counts: Collection[int], clips: int | None) -> bool:
    if order == "TF":
        return bool(_widths(shape[1], counts))
    return shape[order.index("V")] in counts and _has_coordinates(order, shape, clips)


def _has_coordinates(order: str, shape: tuple[int, ...], clips: int | None) -> bool:
    """Say whether the other axes than that of joints have sizes that they may have."""
    sizes = dict(zip(order, shape, strict=True))
    if order == "VC":
        return sizes["C"] in (2, 3, 4)
    if order == "TF":
        return False
    several = clips is not None and clips > 1
    if several and sizes.get("N") != clips:
        return False
    if order in ("NTVC", "NCTV") and not several and min(sizes["N"], sizes["T"]) <= MOST_BODIES:
        return False
    return sizes["C"] in (2, 3, 4, 5) and sizes.get("M", 1) <= MOST_BODIES


def _widths(width: int, counts: Collection[int]) -> list[tuple[int, int]]:
    """Return joints and coordinates that rows of so many values may have; four are MediaPipe's with visibility."""
    return [
        (width // size, size)
        for size in (3, 2, 4)
        if width % size == 0 and width // size in counts and (size < 4 or width == 4 * 33)
    ]


def _of_rows(array: np.ndarray, where: str, counts: Collection[int]) -> tuple[list[np.ndarray], list[str]]:
    """Return rows of all coordinates of a frame, ``x, y[, z]`` of one joint after another, as a clip."""
    width = array.shape[1]
    fitting = _widths(width, counts)
    if len(fitting) != 1:
        may = " or ".join(f"{joints} joints in {size} coordinates" for joints, size in fitting)
        raise ValueError(
            f"{where} has shape {array.shape}, frames of {width} values, "
            + (
                f"which may be {may}; name the skeleton with --layout"
                if may
                else "which is no known skeleton"
            )
            + "; or save it as (frames, joints, coordinates)"
        )
    joints, size = fitting[0]
    note = f"{width} values a frame are read as {joints} joints in {size} coordinates, a joint after another"
    return [array.reshape(len(array), 1, joints, size)], [note]


def _shown(order: str) -> str:
    return f"({', '.join(_WORDS[axis] for axis in order)})"
