"""Pooling of what exists: the tokens of a body into one vector, and the bodies of a clip.

Poolings of the tokens: their mean; a mean for each region of the body; a mean for each region and third of the time;
mean and maximum. The regions are five slots (as of SOfA, arXiv 2609.07078): trunk with head, two arms, two legs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ...errors import check_name
from ...layouts.body import regions_of
from ...ops.common.checks import are_values_checked, check_indices
from ...skeleton import SkeletonLayout

POOLINGS = ("mean", "regions", "regions+time", "mean+max")
"""What ``pooling`` may name."""

SLOTS = ("trunk", "left_arm", "right_arm", "left_leg", "right_leg")
"""The regions that are pooled, in the order in which features hold them; the head is of the trunk (choice)."""

THIRDS = 3
# A joint of no region.
_NOWHERE = -1
# Joints that a message names.
_SHOWN = 8


def slots_of(layout: SkeletonLayout) -> tuple[int, ...]:
    """Return the place in :data:`SLOTS` of each joint's region, ``V`` numbers; -1 for a joint of no region."""
    merged = ["trunk" if region == "head" else region for region in regions_of(layout)]
    return tuple(_NOWHERE if region is None else SLOTS.index(region) for region in merged)


def check_pooling(pooling: str, layout: str, slots: Sequence[int], times: int) -> None:
    """Raise ``ValueError`` for a pooling that is unknown, or that tokens cannot have.

    Args:
        pooling: one of :data:`POOLINGS`.
        layout: the layout's name, for the error.
        slots: of its joints, see :func:`slots_of`.
        times: time patches of the tokens.
    """
    check_name("pooling", pooling, POOLINGS)
    if not pooling.startswith("regions"):
        return
    known = sorted({SLOTS[slot] for slot in slots if slot != _NOWHERE})
    if len(known) < 2:
        found = f"joints of {known[0]} alone" if known else "no joint whose region is known"
        raise ValueError(
            f"pooling={pooling!r} needs the regions of a body, and layout {layout!r} has {found}: use pooling='mean' "
            "or 'mean+max', or name joints after parts of the body (fastamr layouts shows the names)"
        )
    if pooling == "regions+time" and times < THIRDS:
        raise ValueError(
            f"pooling='regions+time' needs at least {THIRDS} time patches, the tokens have {times}: use "
            "pooling='regions', or an encoder of more frames or smaller patches"
        )


def unplaced_joints(pooling: str, layout: SkeletonLayout) -> list[str]:
    """Return a line where a pooling by regions leaves joints out, because their region is not known; else nothing."""
    places = zip(layout.joints, slots_of(layout), strict=True)
    joints = [joint for joint, slot in places if slot == _NOWHERE]
    if not joints or not pooling.startswith("regions"):
        return []
    names = ", ".join(joints[:_SHOWN]) + (", ..." if len(joints) > _SHOWN else "")
    return [
        f"pooling={pooling!r} leaves out {len(joints)} joints whose region of the body is not known: {names}"
    ]


def pooled_width(pooling: str, width: int) -> int:
    """Return F, the values that a pooling makes of tokens of ``width`` values: a mean has as many, ``mean+max`` twice.

    ``regions`` and ``regions+time`` have ``width`` values and a flag for each of 5 or 15 cells.
    """
    cells = {"regions": len(SLOTS), "regions+time": THIRDS * len(SLOTS)}.get(pooling)
    return cells * (width + 1) if cells else width * (2 if pooling == "mean+max" else 1)


def mean_tokens(tokens: Tensor, known: Tensor | None = None) -> Tensor:
    """Mean over the second dimension, of the known tokens where there is any.

    Args:
        tokens: ``(S, N, ..., D)``.
        known: ``(S, N, ...)`` bool, the tokens that count; None counts all. Where none is known, all count.

    Returns:
        ``(S, ..., D)``, float32 for 16-bit tokens: a mean of hundreds is more exact than each of them.
    """
    compute = torch.promote_types(torch.float32, tokens.dtype)
    if known is None:
        return tokens.mean(1, dtype=compute)
    mask = (known | ~known.any(1, keepdim=True))[..., None]
    return (tokens * mask).sum(1, dtype=compute) / mask.sum(1)


def max_tokens(tokens: Tensor, known: Tensor | None = None) -> Tensor:
    """As :func:`mean_tokens`, the largest value of each channel instead of the mean."""
    if known is not None:
        mask = (known | ~known.any(1, keepdim=True))[..., None]
        tokens = torch.where(mask, tokens, float("-inf"))
    return tokens.amax(1).to(torch.promote_types(torch.float32, tokens.dtype))


def mean_regions(
    tokens: Tensor, known: Tensor | None, slots: Sequence[int], *, thirds: bool = False
) -> Tensor:
    """Means of the known tokens of each region, or of each region in each third of the time, side by side.

    Args:
        tokens: ``(S, N, D)``; token ``time * J + place`` is of the joint at that place in ``slots``.
        known: ``(S, N)`` bool, the tokens that count; None counts all.
        slots: of J joints, all or some of a layout's in any order, the place of the region in :data:`SLOTS`; -1 counts
            nowhere.
        thirds: cut the time patches into three consecutive parts that differ by one patch at most, the longer ones
            first.

    Returns:
        ``(S, R * D + R)``, float32 for 16-bit tokens: R means (5, or 15: the regions of the first third, then of the
        second), zeros where a region has no known token; then R flags, 1 where it has one, else 0. Flags are there
        always, so that the width follows from the pooling alone.
    """
    compute = torch.promote_types(torch.float32, tokens.dtype)
    joints = len(slots)
    if tokens.shape[1] % joints:
        raise ValueError(
            f"tokens of {joints} joints are expected, the encoder makes {tokens.shape[1]}: use pooling='mean'"
        )
    # Over the time first, which leaves little: a pass over the tokens, whatever the number of regions.
    times = tokens.shape[1] // joints
    bounds = [-(-part * times // THIRDS) for part in range(THIRDS + 1)] if thirds else [0, times]
    sizes = [end - start for start, end in pairwise(bounds)]
    grid = tokens.unflatten(1, (times, joints))
    if known is None:
        counts = [grid.new_full((joints,), size, dtype=compute).expand(len(grid), -1) for size in sizes]
    else:
        mask = known.unflatten(1, (times, joints))
        grid = torch.where(mask[..., None], grid, 0.0)
        counts = [part.sum(1, dtype=compute) for part in mask.split(sizes, dim=1)]
    sums = [part.sum(1, dtype=compute) for part in grid.split(sizes, dim=1)]
    total, count = _add_up(torch.stack(sums, 1), slots), _add_up(torch.stack(counts, 1)[..., None], slots)
    means = total / count.clamp(min=1)
    return torch.cat([means.flatten(1), (count > 0).to(compute).flatten(1)], dim=1)


def _add_up(values: Tensor, slots: Sequence[int]) -> Tensor:
    """Sums over the joints of each region: ``(S, P, J, D)`` to ``(S, P, 5, D)``.

    Runs of joints of one region are split off: no index lies on the device, so that any runtime, compiler and recording
    takes it.
    """
    lengths: list[int] = []
    owners: list[int] = []
    for slot in slots:
        if owners and owners[-1] == slot:
            lengths[-1] += 1
        else:
            owners.append(slot)
            lengths.append(1)
    found: list[Tensor | None] = [None] * len(SLOTS)
    for slot, run in zip(owners, values.split(lengths, dim=2), strict=True):
        if slot != _NOWHERE:
            before, part = found[slot], run.sum(2)
            found[slot] = part if before is None else before + part
    nothing = values.new_zeros(*values.shape[:2], values.shape[3])
    return torch.stack([nothing if one is None else one for one in found], dim=2)


def pool_tokens(
    tokens: Tensor, known: Tensor | None = None, pooling: str = "mean", slots: Sequence[int] = ()
) -> Tensor:
    """Pool the tokens of each body into one vector.

    Args:
        tokens: ``(S, N, D)``.
        known: ``(S, N)`` bool, the tokens that count; None counts all. Where none is known, a mean and a maximum count
            all, a region none.
        pooling: one of :data:`POOLINGS`.
        slots: see :func:`mean_regions`; for regions alone.

    Returns:
        ``(S, F)``, F of :func:`pooled_width`; float32 for 16-bit tokens.
    """
    if pooling == "mean":
        return mean_tokens(tokens, known)
    if pooling == "mean+max":
        return torch.cat([mean_tokens(tokens, known), max_tokens(tokens, known)], dim=1)
    return mean_regions(tokens, known, slots, thirds=pooling == "regions+time")


def average_bodies(
    features: Tensor, owner: Tensor, count: int | None = None, *, partial: bool = False
) -> Tensor:
    """Mean over the bodies of each clip.

    Args:
        features: ``(S, F)``, one body a row.
        owner: ``(S,)`` int64, the clip of each body, from 0; every clip has a body.
        count: B, the number of clips. Nothing is then read back from a GPU, rows with an owner of -1 belong to no clip
            (they fill a batch up to a fixed size), and a clip without a body has zeros on a GPU. None counts them.
        partial: with ``count``: clips without a body here may have some elsewhere, and get zeros.

    Returns:
        ``(B, F)``.

    Raises:
        ValueError: owners that do not fit, or a clip without a body (with ``count``: on a CPU).
    """
    count = _count_clips(features, owner, count, partial)
    # Rows of no clip are added up in a last row of their own.
    place = torch.where(owner < 0, count, owner)
    counts = owner.new_zeros(count + 1).index_add(0, place, torch.ones_like(place))[:count]
    total = features.new_zeros(count + 1, features.shape[1]).index_add(0, place, features)[:count]
    return total / counts.clamp(min=1)[:, None]


def _count_clips(features: Tensor, owner: Tensor, count: int | None, partial: bool) -> int:
    """Return how many clips there are; raise for owners that do not fit, see :func:`average_bodies`."""
    if owner.shape != features.shape[:1] or owner.dtype != torch.int64:
        raise ValueError(
            f"owner has shape {tuple(owner.shape)} and dtype {owner.dtype}, expected ({len(features)},) int64: "
            "one clip index a body"
        )
    if count is None:
        counts = torch.bincount(owner)
        _check_owned(counts)
        return len(counts)
    if are_values_checked(owner):
        check_indices("owner", torch.where(owner == -1, 0, owner), count, "clip")
        if not partial:
            _check_owned(torch.bincount(owner[owner >= 0], minlength=count))
    return count


def _check_owned(counts: Tensor) -> None:
    """Raise for a clip without a body."""
    if bool((counts == 0).any()):
        clip = int((counts == 0).nonzero()[0])
        raise ValueError(f"owner names no body of clip {clip}: number the clips of a batch without gaps")


PEOPLE = 2
"""Bodies of a clip that stand side by side in :func:`order_bodies`."""


def ordered_width(width: int) -> int:
    """Return the values that :func:`order_bodies` makes of bodies of ``width`` values."""
    return PEOPLE * width + 1


def body_motion(clips: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return how much each body moves, ``(...)`` float32 or wider, units a frame; 0 for a single frame.

    The mean over all joints and pairs of neighbouring frames of how far the joint went, 0 where it was not seen in
    both.

    Args:
        clips: ``(..., T, V, C)``; what is not valid does not matter.
        valid: ``(..., T, V)`` bool, joints that were seen; None = all.
    """
    clips = clips.to(torch.promote_types(torch.float32, clips.dtype))
    if clips.shape[-3] < 2:
        return clips.new_zeros(clips.shape[:-3])
    moved = clips[..., 1:, :, :] - clips[..., :-1, :, :]
    if valid is not None:
        moved = torch.where((valid[..., 1:, :] & valid[..., :-1, :])[..., None], moved, 0.0)
    return moved.norm(dim=-1).mean((-2, -1))


def order_bodies(
    features: Tensor, owner: Tensor, motion: Tensor, count: int | None = None, *, partial: bool = False
) -> Tensor:
    """The two bodies of each clip that move most side by side, the most active first.

    Of bodies that move alike the first one comes first.

    Args:
        features: ``(S, F)``, one body a row.
        owner: ``(S,)`` int64, the clip of each body, see :func:`average_bodies`, as ``count`` and ``partial``.
        motion: ``(S,)``, see :func:`body_motion`.
        count: B, the number of clips; None counts them.
        partial: clips without a body here may have some elsewhere.

    Returns:
        ``(B, 2 * F + 1)``: both bodies and a flag, 1 where there is a second one; else that is 0, as is its body. A
        clip without a body here has zeros.

    Raises:
        ValueError: as :func:`average_bodies`.
    """
    count = _count_clips(features, owner, count, partial)
    order = (-motion).argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]
    sorted_owner = owner[order]
    # How many bodies of the same clip stand before each.
    within = torch.arange(len(order), device=order.device) - torch.searchsorted(sorted_owner, sorted_owner)
    rank = torch.zeros_like(owner).scatter(0, order, within)
    # Rows of no clip, and bodies beyond the second, are added up in a last row of their own.
    place = torch.where((owner >= 0) & (rank < PEOPLE), owner * PEOPLE + rank, count * PEOPLE)
    rows = features.new_zeros(count * PEOPLE + 1, features.shape[1]).index_add(0, place, features)
    there = features.new_zeros(count * PEOPLE + 1).index_add(0, place, features.new_ones(len(place)))
    return torch.cat([rows[:-1].view(count, -1), there[1:-1:PEOPLE, None]], dim=1)
