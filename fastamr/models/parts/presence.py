"""Which joints of its layout a model has tokens of, and which of them a sequence has.

A model has tokens of the joints that its configuration lists as ``present``; of the layout ``body`` a sequence may lack
some of these again, those that are not seen in any of its frames. A joint that a sequence lacks is no token of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...skeleton import SkeletonLayout
from .config import ModelConfig


def check_masking(config: ModelConfig) -> None:
    """Raise where sequences have different joints and the masking keeps whole joints or frames.

    Raises:
        ValueError: naming those that serve.
    """
    if config.masks_tokens and not config.uniform and config.masking not in ("random", "motion"):
        raise ValueError(
            f"masking={config.masking!r} keeps whole joints or times, and the sequences have different joints: use "
            "'random' or 'motion'"
        )


def present_index(config: ModelConfig) -> Tensor | None:
    """Return the joints ``(V',)`` int64, ascending, that a model has tokens of; None where it has those of all."""
    joints = config.present_joints
    return None if len(joints) == config.joints else torch.tensor(joints)


def tokens_of(joints: Tensor, times: int, total: int) -> Tensor:
    """Return the tokens ``(times * V',)`` int64 of some joints ``(V',)`` of ``total``, ascending where these are."""
    steps = torch.arange(times, device=joints.device)[:, None]
    return (steps * total + joints).flatten()


def joints_seen(valid: Tensor) -> Tensor:
    """Return which joints ``(S, V)`` are seen in any frame of ``valid (S, T, V)``; all, where a sequence shows none."""
    seen = valid.any(1)
    return seen | ~seen.any(1, keepdim=True)


def ancestors(layout: SkeletonLayout, joints: Sequence[int]) -> Tensor:
    """Return which of some joints lie on the way from each of them to the root of the layout's tree.

    Returns:
        ``(V', V')`` float32, 1 at ``[v, a]`` where ``a`` is ``v`` or above it, else 0.
    """
    place = {joint: number for number, joint in enumerate(joints)}
    path = torch.zeros(len(joints), len(joints))
    for number, joint in enumerate(joints):
        while joint != -1:
            if joint in place:
                path[number, place[joint]] = 1.0
            joint = layout.parents[joint]
    return path


def nearest_above(path: Tensor, depth: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the nearest joint above each one that there is.

    Args:
        path: ``(V', V')`` from :func:`ancestors`.
        depth: ``(V',)``, joints on the way from each one to the root: the rows' sums of ``path``.
        seen: ``(S, V')`` bool, the joints that each sequence has; None = all.

    Returns:
        Joints ``(V',)`` int64, and whether there is such a joint ``(V',)`` bool; ``(S, V')`` for each sequence.
        Where there is none, and for joints that a sequence lacks, the first of the joints, and False.
    """
    above = path - torch.eye(len(path), dtype=path.dtype, device=path.device)
    if seen is not None:
        above = above * (seen[:, None, :] & seen[:, :, None])
    nearest, joints = (above * depth).max(-1)
    return torch.where(nearest > 0, joints, 0), nearest > 0


def known_or_there(known: Tensor, there: Tensor | None) -> Tensor:
    """Return the tokens that count in a mean.

    Args:
        known: ``(S, N)`` bool, tokens that are seen.
        there: ``(S, N)`` bool, tokens that there are; None = all.

    Returns:
        ``(S, N)`` bool: the known ones that there are; of a sequence without such all that there are.
    """
    if there is None:
        return known
    known = known & there
    return known | (there & ~known.any(1, keepdim=True))


def over_times(joints: Tensor, times: int) -> Tensor:
    """Return ``(S, V)``, something of each joint, for each of its tokens ``(S, times * V)``."""
    return joints[:, None].expand(-1, times, -1).flatten(1)


def over_layout(values: Tensor, present: Tensor, total: int, dim: int) -> Tensor:
    """Return values of the joints ``present``, which dimension ``dim`` lists, with zeros for the layout's others."""
    shape = list(values.shape)
    shape[dim] = total
    return values.new_zeros(shape).index_copy(dim, present, values)
