"""Which tokens stay visible, always exactly K (choice): the masking strategies of SkeletonMAE and of MAMP."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import ops

STRATEGIES = ("random", "frame", "joint", "frame+joint", "motion")
# Keeps the largest intensity of a sequence without motion from dividing by zero (public code of MAMP).
_STILL = 1e-10


def token_validity(valid: Tensor, patch_frames: int) -> Tensor:
    """Valid tokens ``(S, N)`` of ``valid (S, T, V)``: all frames of the patch are valid (choice)."""
    frames = valid.shape[1]
    return valid.unflatten(1, (frames // patch_frames, patch_frames)).all(2).flatten(1)


def motion_scores(
    clips: Tensor, *, patch_frames: int, tau: float = 0.8, valid: Tensor | None = None
) -> Tensor:
    """Log-probability of each token to be hidden, by its motion (MAMP).

    The intensity of a patch is the mean of ``|patch(t) - patch(t-1)|`` over its values; the first patch copies the
    second. Divided by ``tau`` times the sequence's largest, the intensities of all tokens pass a softmax.

    Args:
        clips: ``(S, T, V, C)``.
        patch_frames: l.
        tau: temperature; the smaller, the more the moving tokens stand out.
        valid: ``(S, T, V)`` bool; the mean leaves out values that are missing in one of the two patches, and a patch
            of none has intensity 0 (choice).

    Returns:
        ``(S, N)`` scores for :func:`fastamr.ops.select_visible`, which keeps the smallest after adding Gumbel noise.
        A clip of one patch has no motion to tell its tokens apart: all score the same (choice).
    """
    sequences, frames, joints, channels = clips.shape
    times = frames // patch_frames
    if times == 1:
        return clips.new_zeros(sequences, joints)
    moved = (clips[:, patch_frames:] - clips[:, :-patch_frames]).abs().sum(3)
    count: Tensor | int = patch_frames
    if valid is not None:
        known = valid[:, patch_frames:] & valid[:, :-patch_frames]
        moved = torch.where(known, moved, 0)
        count = known.unflatten(1, (times - 1, patch_frames)).sum(2).clamp(min=1)
    intensity = moved.unflatten(1, (times - 1, patch_frames)).sum(2) / (count * channels)
    intensity = torch.cat([intensity[:, :1], intensity], dim=1).flatten(1)
    return (intensity / (intensity.amax(1, keepdim=True) * tau + _STILL)).log_softmax(1)


def product_of(visible: int, times: int, joints: int) -> tuple[int, int]:
    """Time patches and joints ``(a, b)`` whose product comes closest to ``visible`` from below.

    Among equal products the pair of the closest factors wins, and of those the one with more time patches: 75 of
    30 x 25 gives 15 x 5.
    """
    pairs = [
        (a, b) for a in range(1, times + 1) for b in range(1, min(joints, visible) + 1) if a * b <= visible
    ]
    return max(pairs, key=lambda pair: (pair[0] * pair[1], -abs(pair[0] - pair[1]), pair[0]))


def _whole_units(
    seed: Tensor, sequences: int, units: int, size: int, visible: int, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Keep whole random units of ``size`` members, then a random part of one more.

    Returns:
        ``unit`` and ``member``, each ``(S, visible)`` int64.
    """
    whole, rest = divmod(visible, size)
    units_valid = None if valid is None else valid.any(2)
    chosen = torch.zeros(sequences, units, dtype=torch.bool, device=seed.device)
    unit = torch.empty(sequences, 0, dtype=torch.int64, device=seed.device)
    member = unit
    if whole:
        picked = ops.select_visible(
            ops.derive_seed(seed, 1), sequences, units, whole, valid=units_valid
        ).long()
        chosen = chosen.scatter(1, picked, True)
        unit = picked.repeat_interleave(size, dim=1)
        member = torch.arange(size, device=seed.device).repeat(whole).expand(sequences, -1)
    if rest:
        free = ~chosen if units_valid is None else ~chosen & units_valid
        # Where no valid unit is left, any free one must serve; taken units never.
        free = torch.where(free.any(1, keepdim=True), free, ~chosen)
        last = ops.select_visible(ops.derive_seed(seed, 2), sequences, units, 1, valid=free).long()
        inner = None
        if valid is not None:
            inner = valid[torch.arange(sequences, device=seed.device), last[:, 0]]
        part = ops.select_visible(ops.derive_seed(seed, 3), sequences, size, rest, valid=inner).long()
        unit = torch.cat([unit, last.expand(-1, rest)], dim=1)
        member = torch.cat([member, part], dim=1)
    return unit, member


def _product(
    seed: Tensor, sequences: int, times: int, joints: int, visible: int, valid: Tensor | None
) -> Tensor:
    """Keep a random product of time patches and joints and fill the remainder at random; ``(S, visible)`` int64."""
    rows, columns = product_of(visible, times, joints)
    time = ops.select_visible(ops.derive_seed(seed, 1), sequences, times, rows).long()
    joint = ops.select_visible(ops.derive_seed(seed, 2), sequences, joints, columns).long()
    tokens = (time[:, :, None] * joints + joint[:, None, :]).flatten(1)
    rest = visible - rows * columns
    if rest == 0:
        return tokens
    free = torch.ones(sequences, times * joints, dtype=torch.bool, device=seed.device).scatter(
        1, tokens, False
    )
    if valid is not None:
        enough = (free & valid).sum(1, keepdim=True) >= rest
        free = torch.where(enough, free & valid, free)
    filler = ops.select_visible(ops.derive_seed(seed, 3), sequences, times * joints, rest, valid=free).long()
    return torch.cat([tokens, filler], dim=1)


def choose_visible(
    seed: Tensor,
    sequences: int,
    times: int,
    joints: int,
    visible: int,
    *,
    strategy: str = "random",
    valid: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """Choose the visible tokens of each sequence by a strategy.

    Args:
        seed: ``(2,)`` int64.
        sequences: S.
        times: time patches, T/l.
        joints: V.
        visible: K.
        strategy: ``"random"``; of SkeletonMAE (Wu et al. 2022) ``"frame"`` keeps whole random time patches
            and a random part of one more; ``"joint"`` keeps whole random joints and a random part of one more;
            ``"frame+joint"`` keeps a random product of time patches and joints and a random remainder; ``"motion"``
            hides what moves (MAMP, Mao et al. 2023).
        valid: ``(S, N)`` bool; under ``random`` and ``motion`` invalid tokens are chosen last. The structured
            strategies prefer units that hold a valid token.
        scores: ``(S, N)``, see :func:`motion_scores`; for ``"motion"`` only.

    Returns:
        ``(S, K)`` int32, ascending.

    Raises:
        ValueError: scores missing under ``"motion"``, or given under another strategy.
    """
    if (strategy == "motion") != (scores is not None):
        needs = "needs scores=motion_scores(clips, ...)" if scores is None else "takes no scores"
        raise ValueError(f"strategy {strategy!r} {needs}")
    if strategy in ("random", "motion"):
        return ops.select_visible(seed, sequences, times * joints, visible, scores=scores, valid=valid)
    grid = None if valid is None else valid.view(sequences, times, joints)
    if strategy == "frame":
        time, joint = _whole_units(seed, sequences, times, joints, visible, grid)
        tokens = time * joints + joint
    elif strategy == "joint":
        by_joint = None if grid is None else grid.transpose(1, 2)
        joint, time = _whole_units(seed, sequences, joints, times, visible, by_joint)
        tokens = time * joints + joint
    else:
        tokens = _product(seed, sequences, times, joints, visible, valid)
    return tokens.sort(dim=1).values.int()
