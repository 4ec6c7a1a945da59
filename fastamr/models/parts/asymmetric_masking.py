"""ASMa's masks: one encoder misses the central joints and the still frames, the other the outer and the moving ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ... import ops
from ...reference.philox import STREAM_VIEWS, philox_words

VIEWS = ("a", "b")


class ViewMasks(NamedTuple):
    """What one encoder's two masked streams see.

    Attributes:
        joints: ``(S, V')`` int64, ascending, of the spatial stream, places among the joints that are present. Of a
            sequence that lacks some of them these fill the list.
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


def draw_of_each(
    seed: Tensor, degrees: Tensor, share: float, visible: int, seen: Tensor, *, central: bool
) -> Tensor:
    """Hide a share of the joints that each sequence has, with probabilities as :func:`draw_joints`.

    Args:
        seed: ``(2,)`` int64, or ``(3,)`` with the number of the first sequence.
        degrees: ``(S, V)``, of the graph of the joints that a sequence has.
        share: of the joints that are hidden, at least one of them and never all.
        visible: places of the list: the joints that a sequence of all V joints shows.
        seen: ``(S, V)`` bool, the joints that each sequence has.
        central: as there.

    Returns:
        ``(S, visible)`` int64, ascending: the joints that are shown and, to fill the list, some that the sequence
        lacks. Hidden ones are never listed.
    """
    sequences, joints = seen.shape
    rows = torch.arange(sequences, device=seed.device)
    rows = rows if len(seed) == 2 else rows + seed[2]
    uniform = (philox_words(seed, rows, joints, STREAM_VIEWS).double() + 0.5) / 2.0**32
    scores = (degrees.log() if central else -degrees.log()) - (-uniform.log()).log()
    total = seen.sum(1, keepdim=True)
    hidden = (total.double() * share).round().clamp(min=1).minimum(total - 1)
    rank = torch.where(seen, scores, torch.inf).argsort(dim=1, stable=True).argsort(1)
    last = torch.where(seen, torch.where(rank < total - hidden, 0, 2), 1)
    return last.argsort(dim=1, stable=True)[:, :visible].sort(1).values


def draw_joints(
    seed: Tensor, sequences: int, degrees: Tensor, visible: int, *, central: bool, valid: Tensor | None
) -> Tensor:
    """Hide joints without replacement, with probability proportional to their degree or to its inverse.

    Args:
        seed: ``(2,)`` int64.
        sequences: S.
        degrees: ``(V,)`` from :meth:`fastamr.models.parts.joint_graph.JointGraph.degrees`, on the seed's device.
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
    seen: Tensor | None = None,
    share: float = 0.0,
) -> dict[str, ViewMasks]:
    """Masks of both encoders: ``"a"`` hides central joints and still times, ``"b"`` outer joints and moving times.

    Args:
        seed: ``(2,)`` int64; decides the joints, the times follow from the motion.
        clips: ``(S, T, V, C)``.
        degrees: ``(V,)`` as of :func:`draw_joints`, on the clips' device; ``(S, V)`` with ``seen``.
        joints: joints that stay in the spatial streams.
        times: units of time that stay in the temporal streams.
        unit: frames of a unit, divides T.
        valid: ``(S, T, V)`` bool.
        seen: ``(S, V)`` bool, the joints that each sequence has, where they differ.
        share: of a sequence's own joints that is hidden then.
    """
    motion, known = frame_motion(clips, unit, valid)
    some = None if valid is None else valid.any(1)
    masks = {}
    for number, view in enumerate(VIEWS, 1):
        own, central = ops.derive_seed(seed, number), view == "a"
        drawn = (
            draw_joints(own, len(clips), degrees, joints, central=central, valid=some)
            if seen is None
            else draw_of_each(own, degrees, share, joints, seen, central=central)
        )
        masks[view] = ViewMasks(drawn, rank_times(motion, known, times, still=central))
    return masks
