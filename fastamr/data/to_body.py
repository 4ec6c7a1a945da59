"""Data of any skeleton as the parts of a body, for models that take any skeleton.

A joint enters as the part of the body that it is (:func:`fastamr.layouts.body.parts_of`). Parts that a skeleton lacks
are not seen in any frame, and joints that are no part of the layout ``body`` (fingers, points of a face) are left out.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..skeleton import BODY, SkeletonLayout, is_body
from .preprocessing.convert_layout import convert, joint_map

if TYPE_CHECKING:
    from .packed.dataset import PackedSkeletons

# Frames looked at a time.
_CHUNK = 1 << 16
ABOUT = "body"
"""What the note in a data set's steps is about."""


def as_body(data: PackedSkeletons) -> PackedSkeletons:
    """Return a data set in the layout ``body``, or as it is where it has it.

    Pre-processing that needs hips and a trunk comes before: not every skeleton has those of ``body``.

    Args:
        data: the data set, of any layout; it is left as it is. Its frames are copied.

    Raises:
        ValueError: no joint of it is a part of the layout ``body``.
    """
    if is_body(data.layout):
        return data
    left_out = joints_left_out(data.layout)
    note = {"name": "note", "about": ABOUT, "source": data.layout.name, "left_out": list(left_out)}
    converted = convert(data, BODY, missing="mask")
    return dataclasses.replace(converted, steps=(*data.steps, note))


def joints_left_out(layout: SkeletonLayout) -> tuple[str, ...]:
    """Return the joints of a layout that are no part of the layout ``body``.

    Raises:
        ValueError: all are.
    """
    copied = set(joint_map(layout, BODY).copied.values())
    return tuple(joint for joint in layout.joints if joint not in copied)


def body_note(layout: SkeletonLayout, source: str) -> str | None:
    """Return a line on what becomes of the joints of a data set, or None where it has the layout ``body``."""
    if is_body(layout):
        return None
    left_out = joints_left_out(layout)
    text = (
        f"{source}: {layout.num_joints - len(left_out)} joints of {layout.name} are parts of the layout body"
    )
    if not left_out:
        return text
    some = ", ".join(left_out[:6]) + (", ..." if len(left_out) > 6 else "")
    return f"{text}, {len(left_out)} are left out ({some})"


def parts_seen(data: PackedSkeletons) -> Tensor:
    """Return which joints each body sequence has: those that are seen in any of its frames.

    Returns:
        ``(B, V)`` bool, on the data's device.
    """
    count, joints = data.num_bodies, data.layout.num_joints
    if data.valid is None:
        return torch.ones(count, joints, dtype=torch.bool, device=data.device)
    frames = torch.zeros(count, joints, dtype=torch.int32, device=data.device)
    for start in range(0, data.num_frames, _CHUNK):
        rows = data.valid[start : start + _CHUNK]
        number = torch.arange(start, start + len(rows), device=data.device)
        owner = torch.searchsorted(data.offsets, number, right=True) - 1
        frames.index_add_(0, owner, rows.to(torch.int32))
    return frames > 0
