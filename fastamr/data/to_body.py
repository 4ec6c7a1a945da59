"""Data of any skeleton as the parts of a body, for models that take any skeleton.

A joint enters as the part of the body that it is (:func:`fastamr.layouts.body.parts_of`). Parts that a skeleton lacks
are not seen in any frame, and joints that are no part of the layout ``body`` (fingers, points of a face) are left out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..skeleton import BODY, LAYOUTS, SkeletonLayout, get_layout, is_body
from .packed.mapped import parts_of
from .preprocessing.apply import Step, apply_missing, preprocess
from .preprocessing.body_frame import trunk
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
    built_in = LAYOUTS.get(data.layout.name) == data.layout
    source = data.layout.name if built_in else json.loads(json.dumps(data.layout.to_dict()))
    left_out = list(joints_left_out(data.layout))
    converted = convert(data, BODY, missing="mask")
    note = {"name": "note", "about": ABOUT, "source": source, "left_out": left_out}
    return dataclasses.replace(converted, steps=(*data.steps, note))


def for_layout(
    data: PackedSkeletons,
    layout: SkeletonLayout,
    steps: Iterable[str | Mapping[str, Any] | Step] = (),
    channels: int | None = None,
) -> PackedSkeletons:
    """Return a data set with the pre-processing that it lacks, and as parts of a body where a model takes these.

    For a model of ``body`` with three channels key points in an image get a depth of 0, after y was made to point up
    and the steps were done in the image's plane.

    Args:
        data: the data set, of the model's layout, or of any for ``body``.
        layout: the model's layout.
        steps: the pre-processing, see :func:`fastamr.data.parse_steps`.
        channels: the model's; None = the data's own.

    Raises:
        ValueError: as :func:`as_body` and the steps.
    """
    if not is_body(layout):
        return apply_missing(data, steps)
    flat = gains_depth(data, layout, channels)
    ready = as_body(apply_missing(upright(data) if flat else data, steps))
    return with_depth(ready) if flat else ready


def gains_depth(data: PackedSkeletons, layout: SkeletonLayout, channels: int | None) -> bool:
    """Return whether data of two channels are for a model of ``body`` with three."""
    return is_body(layout) and channels == 3 and data.coords.shape[-1] == 2


def common_channels(sets: Sequence[PackedSkeletons], layout: SkeletonLayout) -> int | None:
    """Return the channels that data sets have together: three where a model of ``body`` sees both kinds, else None."""
    return max(one.coords.shape[-1] for one in sets) if is_body(layout) else None


def upright(data: PackedSkeletons) -> PackedSkeletons:
    """Return 2-D data whose y points up: it is flipped where most trunks point down, as in the pixels of an image.

    A flip keeps left and right of a body apart as in space, seen by the camera; turning it round would not. Data
    without a trunk stay as they are.
    """
    try:
        low, high, seen = trunk(data)
    except ValueError:
        return data
    rises = (high - low)[seen, 1]
    hangs = rises.numel() > 0 and float(rises.median()) < 0
    return preprocess(data, ["flip:axes=y"]) if hangs else data


def with_depth(data: PackedSkeletons) -> PackedSkeletons:
    """Return 2-D data with a third channel of zeros."""
    coords = torch.nn.functional.pad(data.coords, (0, 1))
    note = {"name": "note", "about": "depth", "text": "2-D coordinates, with a third channel of zeros"}
    return dataclasses.replace(data, coords=coords, steps=(*data.steps, note))


def join_ready(sets: Sequence[PackedSkeletons]) -> list[PackedSkeletons]:
    """Return data sets whose notes still tell of each when they are joined: also of those that were ``body`` before."""
    if not any(_sources(one.steps) != [None] for one in sets):
        return list(sets)
    note = {"name": "note", "about": ABOUT, "source": BODY.name, "left_out": []}
    return [
        one if _sources(one.steps) != [None] else dataclasses.replace(one, steps=(*one.steps, note))
        for one in sets
    ]


def joints_left_out(layout: SkeletonLayout) -> tuple[str, ...]:
    """Return the joints of a layout that are no part of the layout ``body``.

    Raises:
        ValueError: all are.
    """
    copied = set(joint_map(layout, BODY).copied.values())
    return tuple(joint for joint in layout.joints if joint not in copied)


def depth_note(source: str) -> str:
    """Return a line on 2-D data beside 3-D data or for a model of it."""
    return f"{source}: 2-D, so its depth is 0 and its y points up"


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


def source_layout(data: PackedSkeletons) -> SkeletonLayout | None:
    """Return the one layout that the clips of a data set had before they became ``body``.

    Returns:
        The layout; None where the clips had several, or were not made by :func:`as_body`.
    """
    found = _sources(data.steps) if is_body(data.layout) else [None]
    first = found[0] if found else None
    return first if all(layout == first for layout in found) else None


def common_joints(data: PackedSkeletons) -> tuple[int, ...] | None:
    """Return the joints of ``body`` that every sequence has because its skeleton does, whether seen or not.

    Returns:
        Indices; None where skeletons differ or are not known, so that the frames of each sequence tell.
    """
    if not is_body(data.layout):
        return None
    if data.valid is None:
        return tuple(range(BODY.num_joints))
    parts = [
        None
        if layout is None
        else tuple(sorted(BODY.index(joint) for joint in joint_map(layout, BODY).copied))
        for layout in _sources(data.steps)
    ]
    return parts[0] if parts and all(one == parts[0] for one in parts) else None


def joints_of_data(data: PackedSkeletons) -> tuple[int, ...]:
    """Return the joints of ``body`` that any sequence of a data set has."""
    common = common_joints(data)
    return tuple(parts_seen(data).any(0).nonzero()[:, 0].tolist()) if common is None else common


def _sources(steps: Sequence[Mapping[str, Any]]) -> list[SkeletonLayout | None]:
    """Return the layouts that steps tell of; None for those of a part of the data that tells none."""
    parts = next((step["steps"] for step in steps if step["name"] == "concatenate"), None)
    if parts is not None:
        return [layout for part in parts for layout in _sources(part)]
    notes = [step["source"] for step in steps if step["name"] == "note" and step["about"] == ABOUT]
    layouts = [get_layout(one) if isinstance(one, str) else SkeletonLayout.from_dict(one) for one in notes]
    return [None if is_body(layout) else layout for layout in layouts] or [None]


def parts_seen(data: PackedSkeletons) -> Tensor:
    """Return which joints each body sequence has: those that are seen in any of its frames.

    Returns:
        ``(B, V)`` bool, on the data's device.
    """
    count, joints = data.num_bodies, data.layout.num_joints
    if data.valid is None:
        return torch.ones(count, joints, dtype=torch.bool, device=data.device)
    frames, first = torch.zeros(count, joints, dtype=torch.int32, device=data.device), 0
    for part in parts_of(data.valid):
        for rows in part.split(_CHUNK):
            number = torch.arange(first, first + len(rows), device=data.device)
            owner = torch.searchsorted(data.offsets, number, right=True) - 1
            frames.index_add_(0, owner, rows.to(torch.int32))
            first += len(rows)
    return frames > 0
