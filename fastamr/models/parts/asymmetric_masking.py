"""ASMa's masks: one encoder misses the central joints and the still frames, the other the outer and the moving ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import ops
from ...skeleton import SkeletonLayout

VIEWS = ("a", "b")


class ViewMasks(NamedTuple):
    """What one encoder's two masked streams see.

    Attributes:
        joints: ``(S, V')`` int64, ascending, of the spatial stream.
        times: ``(S, T')`` int64, ascending, of the temporal stream: frames, or time patches.
    """

    joints: Tensor
    times: Tensor


def frame_motion(clips: Tensor, unit: int = 1, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean squared step to the next frame, averaged over units of ``unit`` frames.

    The last frame has no next one and takes the step before (choice: 0 would always make it the stillest). A clip of a
    single frame does not move.

    Args:
        clips: ``(S, T, V, C)``.
        unit: frames of a unit, divides T.
        valid: ``(S, T, V)`` bool; only joints that are known in both frames count.

    Returns:
        Motion ``(S, T/unit)`` and whether anything of it is known ``(S, T/unit)`` bool.
    """
    frames = clips.shape[1]
    later = torch.arange(1, frames + 1, device=clips.device).clamp(max=frames - 1)
    earlier = (later - 1).clamp(min=0)
    steps = (clips[:, later] - clips[:, earlier]).square().mean(3)
    known = torch.ones_like(steps, dtype=torch.bool)
    if valid is not None:
        known = valid[:, later] & valid[:, earlier]
    total = torch.where(known, steps, 0).unflatten(1, (-1, unit)).sum((2, 3))
    count = known.unflatten(1, (-1, unit)).sum((2, 3))
    return total / count.clamp(min=1), count > 0


def joint_degrees(layout: SkeletonLayout) -> Tensor:
    """Bones that meet in each joint ``(V,)`` float32; a joint without any counts as an end (choice)."""
    return torch.tensor(layout.degrees, dtype=torch.float32).clamp(min=1)


def draw_joints(
    seed: Tensor, sequences: int, degrees: Tensor, visible: int, *, central: bool, valid: Tensor | None
) -> Tensor:
    """Hide joints without replacement, with probability proportional to their degree or to its inverse.

    Args:
        seed: ``(2,)`` int64.
        sequences: S.
        degrees: ``(V,)`` from :func:`joint_degrees`, on the seed's device.
        visible: joints that stay.
        central: whether joints of a high degree are hidden, else those of a low one.
        valid: ``(S, V)`` bool, joints that are known in some frame; the others are hidden first.

    Returns:
        The joints that stay, ``(S, visible)`` int64, ascending.
    """
    scores = degrees.log() if central else -degrees.log()
    scores = scores.expand(sequences, -1).contiguous()
    return ops.select_visible(seed, sequences, len(degrees), visible, scores=scores, valid=valid).long()


def rank_times(motion: Tensor, known: Tensor, visible: int, *, still: bool) -> Tensor:
    """Hide the units of time that move least, or most; of equal ones the latest.

    Args:
        motion: ``(S, T)`` from :func:`frame_motion`.
        known: ``(S, T)`` bool; unknown units are hidden first.
        visible: units that stay.
        still: whether the still ones are hidden, else the moving ones.

    Returns:
        The units that stay, ``(S, visible)`` int64, ascending.
    """
    order = torch.where(known, -motion if still else motion, torch.inf).argsort(dim=1, stable=True)
    return order[:, :visible].sort(dim=1).values


def draw_masks(
    seed: Tensor,
    clips: Tensor,
    degrees: Tensor,
    *,
    joints: int,
    times: int,
    unit: int = 1,
    valid: Tensor | None = None,
) -> dict[str, ViewMasks]:
    """Masks of both encoders: ``"a"`` hides central joints and still times, ``"b"`` outer joints and moving times.

    Args:
        seed: ``(2,)`` int64; decides the joints, the times follow from the motion.
        clips: ``(S, T, V, C)``.
        degrees: ``(V,)`` from :func:`joint_degrees`, on the clips' device.
        joints: joints that stay in the spatial streams.
        times: units of time that stay in the temporal streams.
        unit: frames of a unit, divides T.
        valid: ``(S, T, V)`` bool.
    """
    motion, known = frame_motion(clips, unit, valid)
    seen = None if valid is None else valid.any(1)
    return {
        view: ViewMasks(
            draw_joints(
                ops.derive_seed(seed, number),
                clips.shape[0],
                degrees,
                joints,
                central=view == "a",
                valid=seen,
            ),
            rank_times(motion, known, times, still=view == "a"),
        )
        for number, view in enumerate(VIEWS, 1)
    }
