"""Where a body is and which way it faces: positions, trunk and hip axis of every packed frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..packed.dataset import PackedSkeletons

# Frames read at a time: few enough to stay in the processor's cache.
_CHUNK = 1 << 13


def present_frames(data: PackedSkeletons) -> Tensor:
    """Return ``(F,)`` bool: frames with a coordinate other than 0."""
    blocks = [(block != 0).flatten(1).any(1) for block in data.coords.split(_CHUNK)]
    return torch.cat(blocks)


def joint_position(data: PackedSkeletons, joint: str | int) -> tuple[Tensor, Tensor]:
    """Return a joint's position in every frame, and where it was seen.

    Args:
        data: the data set.
        joint: a joint's name or index; where no joint has that name, ``"root"`` is the layout's root and
            ``"hips"`` the point half-way between the hips.

    Returns:
        ``(F, C)`` float32 and ``(F,)`` bool.

    Raises:
        ValueError: the layout has no such joint, or no hips.
    """
    layout = data.layout
    if joint == "hips" and joint not in layout.joints:
        return _middle(data, _hips(data))
    if joint == "root" and joint not in layout.joints:
        joint = layout.root
    index = layout.index(joint)
    return _middle(data, (index, index))


def trunk(data: PackedSkeletons) -> tuple[Tensor, Tensor, Tensor]:
    """Return the lower and the upper end of the spine in every frame, and where both were seen.

    A layout without a spine takes the points half-way between the hips and between the shoulders.

    Returns:
        Two tensors ``(F, C)`` float32 and ``(F,)`` bool.

    Raises:
        ValueError: the layout has neither.
    """
    layout = data.layout
    if layout.spine is not None:
        lower, upper = ((joint, joint) for joint in layout.spine)
    elif layout.shoulders is not None:
        lower, upper = _hips(data), layout.shoulders
    else:
        raise ValueError(
            f"layout {layout.name!r} has neither a spine nor shoulders, which the steps align_body and "
            f"scale:unit=torso need; write 'spine: [LOWER, UPPER]' into the layout's file (--layout FILE.yaml), or "
            f"name other steps with --preprocess"
        )
    low, low_seen = _middle(data, lower)
    high, high_seen = _middle(data, upper)
    return low, high, low_seen & high_seen


def hip_axis(data: PackedSkeletons) -> tuple[Tensor, Tensor]:
    """Return the vector from the right to the left hip ``(F, C)`` float32, and where both were seen ``(F,)``.

    Raises:
        ValueError: the layout has no hips.
    """
    left, right = _hips(data)
    axis = data.coords[:, left].float() - data.coords[:, right].float()
    return axis, _seen(data, (left, right))


def alignment(
    spine: Tensor, hips: Tensor | None, tolerance: float
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Prepare the rotations that bring the hip axis to x and the spine upright.

    Args:
        spine: ``(F, C)`` float32, from the lower to the upper end.
        hips: ``(F, 3)`` float32, from the right to the left hip; None with 2 channels.
        tolerance: see :class:`~fastamr.data.preprocessing.geometry.AlignBody`.

    Returns:
        A function from rows ``(B,)`` to their rotation matrices ``(B, C, C)``, which act on columns (the identity
        for row ``-1``), and ``(F,)`` bool: the rows whose axes are not degenerate.
    """
    length = spine.norm(dim=-1)
    if hips is None:
        sound = length > 0

        def axes(rows: Tensor) -> Tensor:
            y = torch.nn.functional.normalize(spine[rows], dim=-1)
            return torch.stack([torch.stack([y[:, 1], -y[:, 0]], dim=-1), y], dim=1)
    else:
        across = torch.linalg.cross(hips, spine).norm(dim=-1)
        width = hips.norm(dim=-1)
        sound = (length > 0) & (width > tolerance * length) & (across > tolerance * length * width)

        def axes(rows: Tensor) -> Tensor:
            x = torch.nn.functional.normalize(hips[rows], dim=-1)
            z = torch.nn.functional.normalize(torch.linalg.cross(x, spine[rows]), dim=-1)
            return torch.stack([x, torch.linalg.cross(z, x), z], dim=1)

    def rotation(rows: Tensor) -> Tensor:
        identity = torch.eye(spine.shape[-1], device=spine.device)
        return torch.where(rows[:, None, None] >= 0, axes(rows.clamp(min=0)), identity)

    return rotation, sound


def _hips(data: PackedSkeletons) -> tuple[int, int]:
    if data.layout.hips is None:
        raise ValueError(
            f"layout {data.layout.name!r} has no hips, which this step needs; give SkeletonLayout hips=(left, right)"
        )
    return data.layout.hips


def _seen(data: PackedSkeletons, joints: tuple[int, int]) -> Tensor:
    if data.valid is None:
        return torch.ones(data.num_frames, dtype=torch.bool, device=data.device)
    return data.valid[:, joints[0]] & data.valid[:, joints[1]]


def _middle(data: PackedSkeletons, joints: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the point half-way between two joints ``(F, C)``, and where both were seen ``(F,)``."""
    first, second = data.coords[:, joints[0]].float(), data.coords[:, joints[1]].float()
    return (first + second) / 2, _seen(data, joints)
