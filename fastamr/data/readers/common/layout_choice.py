"""Which skeleton a file means that only tells how many joints it has, or how they are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ....skeleton import LAYOUTS, SkeletonLayout, get_layout

# Where several layouts have as many joints, the one that files with so many channels hold in practice (choice).
_USUAL = {(25, 3): "ntu25", (25, 2): "openpose25", (17, 3): "h36m17", (17, 2): "coco17"}


def choose_layout(
    given: str | SkeletonLayout | None, joints: int, channels: int, where: str
) -> SkeletonLayout:
    """Return the skeleton of a file.

    Args:
        given: the layout that was asked for; None finds one by the number of joints.
        joints: how many joints the file has.
        channels: 2 or 3 coordinates.
        where: names the file in errors.

    Raises:
        ValueError: the layout has another number of joints, or none or several have as many.
    """
    if given is not None:
        layout = get_layout(given)
        if layout.num_joints != joints:
            raise ValueError(
                f"{where}: {joints} joints, but layout {layout.name!r} has {layout.num_joints}; name another layout"
            )
        return layout
    found = [layout for layout in LAYOUTS.values() if layout.num_joints == joints]
    if (joints, channels) in _USUAL:
        found = [get_layout(_USUAL[joints, channels])]
    if len(found) != 1:
        raise ValueError(
            f"{where}: {joints} joints in {channels} channels, which is no known skeleton; name its layout"
        )
    return found[0]


def plain(name: str) -> str:
    """Return a joint's name without case and separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def layout_of_names(names: Sequence[str]) -> SkeletonLayout | None:
    """Return the built-in layout that has joints of just these names, in any order, or None."""
    wanted = {plain(name) for name in names}
    for layout in LAYOUTS.values():
        if len(names) == layout.num_joints and wanted == {plain(joint) for joint in layout.joints}:
            return layout
    return None
