"""Data of the same joints in another order."""

from __future__ import annotations

import dataclasses
import re

from ...skeleton import SkeletonLayout
from .dataset import PackedSkeletons


def joint_order(own: SkeletonLayout, wanted: SkeletonLayout) -> list[int] | None:
    """Return which joint of one layout is each joint of another; None where they are not the same joints.

    Joints are the same where their names are (case and separators aside) and they hang together in the same way. A
    layout without any bone says nothing of that.

    Args:
        own: the layout that there is.
        wanted: the layout with ``V`` joints that is wanted.

    Returns:
        ``V`` indices into the joints of ``own``, or None.
    """
    names, others = [_plain(joint) for joint in own.joints], [_plain(joint) for joint in wanted.joints]
    if sorted(names) != sorted(others) or len(set(names)) < len(names):
        return None
    order = [names.index(joint) for joint in others]
    if own.edges and wanted.edges and _bones(own, names) != _bones(wanted, others):
        return None
    return order


def in_order_of(data: PackedSkeletons, layout: SkeletonLayout) -> PackedSkeletons | None:
    """Return the data in another layout of the same joints.

    Args:
        data: any data set.
        layout: the layout whose order and name it shall have.

    Returns:
        The data itself where it has that layout; a copy with its joints in that order; None where the layouts are
        not of the same joints, see :func:`joint_order`.
    """
    if data.layout == layout:
        return data
    order = joint_order(data.layout, layout)
    if order is None:
        return None
    if order == list(range(len(order))):
        return dataclasses.replace(data, layout=layout)
    valid = None if data.valid is None else data.valid[:, order]
    return dataclasses.replace(data, coords=data.coords[:, order], valid=valid, layout=layout)


def _plain(joint: str) -> str:
    return re.sub(r"[^a-z0-9]", "", joint.lower())


def _bones(layout: SkeletonLayout, names: list[str]) -> set[tuple[str, str]]:
    return {(names[child], names[parent]) for child, parent in layout.edges}
