"""Mirror, resize, project, disturb and cut clips: augmentations beyond crop and rotation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .philox import STREAM_AUGMENT, STREAM_LIMBS, STREAM_NOISE, philox_words

LIMBS = 8
"""Most limbs of a body that can be dropped."""

# Choices are made with 24 random bits, so that every back end makes the same ones.
_BITS = 24
_ONE = 1 << _BITS


def augment_clips(
    clips: Tensor,
    valid: Tensor | None,
    seed: Tensor,
    *,
    mirror: float,
    partners: Tensor | None,
    scale_jitter: float,
    drop_limbs: float,
    limbs: Tensor | None,
    patch_frames: int,
    visible: int,
    noise: float,
    project: float,
    flat: Tensor | None,
    group: Tensor | None,
    numbers: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Clips ``(S, T, V, C)`` and validity; see :func:`fastamr.ops.augment_clips`.

    The validity has no values where there was none and nothing is dropped.
    """
    sequences, _, joints, channels = clips.shape
    rows = torch.arange(sequences, device=clips.device)
    clips = clips.to(torch.promote_types(torch.float32, clips.dtype))
    choices = philox_words(seed, rows if group is None else group, 4, STREAM_AUGMENT) >> (32 - _BITS)
    own = rows if numbers is None else numbers
    gone = None
    if drop_limbs > 0 and limbs is not None:
        gone = _without(
            dropped_limbs(clips, valid, seed, own, drop_limbs, limbs, patch_frames, visible), limbs
        )
    factor = 1 + (choices[:, 1].to(clips.dtype) / _ONE * 2 - 1) * scale_jitter
    clips = clips * factor[:, None, None, None]
    if mirror > 0 and partners is not None:
        flips = choices[:, 0] < round(mirror * _ONE)
        source = torch.where(flips[:, None], partners, torch.arange(joints, device=clips.device))
        clips = clips.gather(2, source[:, None, :, None].expand_as(clips))
        valid = None if valid is None else valid.gather(2, source[:, None, :].expand_as(valid))
        gone = None if gone is None else gone.gather(1, source)
        clips[..., 0] *= 1 - 2 * flips.to(clips.dtype)[:, None, None]
    if project > 0 or flat is not None:
        flat = torch.zeros_like(rows, dtype=torch.bool) if flat is None else flat
        turned = (choices[:, 2] < round(project * _ONE)) & ~flat
        clips, flat = _yawed(clips, choices[:, 3] * turned), flat | turned
    if noise > 0:
        drawn = noise * normals(seed, own, clips)
        clips = clips + (drawn if valid is None else drawn * valid[..., None])
    if flat is not None:
        depth = torch.arange(channels, device=clips.device) == 2
        clips = clips.masked_fill(flat[:, None, None, None] & depth, 0)
    if gone is not None:
        clips = clips.masked_fill(gone[:, None, :, None], 0)
        valid = ~gone[:, None].expand(clips.shape[:3]) if valid is None else valid & ~gone[:, None]
    seen = (
        clips.new_empty(0, dtype=torch.bool)
        if valid is None
        else valid.clone(memory_format=torch.contiguous_format)
    )
    return clips.contiguous(), seen


def limb_tokens(
    valid: Tensor | None, limbs: Tensor, sequences: int, frames: int, patch_frames: int, visible: int
) -> tuple[Tensor, Tensor]:
    """How many tokens each limb has, and how many a sequence can lose.

    A token is a patch of ``patch_frames`` frames of a joint that are all valid. Three quarters of those beyond the
    ``visible`` ones can go (choice), so that enough remain to be seen and to be predicted.

    Returns:
        ``(S, LIMBS)`` and ``(S,)`` int64.
    """
    if valid is None:
        tokens = torch.full_like(limbs, frames // patch_frames).expand(sequences, len(limbs))
    else:
        whole = frames // patch_frames
        tokens = valid[:, : whole * patch_frames].unflatten(1, (whole, patch_frames)).all(2).sum(1)
    known = limbs == torch.arange(LIMBS, device=limbs.device)[:, None]
    spare = (tokens.sum(1) - visible).clamp(min=0)
    return (tokens[:, None] * known).sum(2), spare * 3 // 4


def dropped_limbs(
    clips: Tensor,
    valid: Tensor | None,
    seed: Tensor,
    numbers: Tensor,
    drop_limbs: float,
    limbs: Tensor,
    patch_frames: int,
    visible: int,
) -> Tensor:
    """Which limbs ``(S, LIMBS)`` bool each sequence loses.

    Each with probability ``drop_limbs``, in the order of their random words, until one asks for more tokens than the
    sequence can lose.
    """
    tokens, spare = limb_tokens(valid, limbs, len(clips), clips.shape[1], patch_frames, visible)
    words = philox_words(seed, numbers, LIMBS, STREAM_LIMBS) >> (32 - _BITS)
    chosen = words < round(drop_limbs * _ONE)
    place = torch.arange(LIMBS, device=clips.device)
    ours, theirs = words[:, :, None], words[:, None, :]
    before = (theirs < ours) | ((theirs == ours) & (place[None, :] <= place[:, None]))
    lost = (before & chosen[:, None, :]) * tokens[:, None, :]
    return chosen & (lost.sum(2) <= spare[:, None])


def normals(seed: Tensor, numbers: Tensor, clips: Tensor) -> Tensor:
    """Draw numbers of the standard normal distribution for clips ``(S, T, V, C)``, by Box and Muller (1958).

    Each frame and joint has four words: two pairs of a radius and an angle.
    """
    _, frames, joints, channels = clips.shape
    words = philox_words(seed, numbers, 4 * frames * joints, STREAM_NOISE) >> (32 - _BITS)
    a, b, c, d = words.unflatten(1, (frames, joints, 4)).to(clips.dtype).unbind(-1)
    pairs = []
    for first, second in ((a, b), (c, d)):
        radius = (-2 * ((first + 1) / _ONE).log()).sqrt()
        angle = second * (2 * math.pi / _ONE)
        pairs += [radius * angle.cos(), radius * angle.sin()]
    return torch.stack(pairs[:channels], dim=-1)


def _without(lost: Tensor, limbs: Tensor) -> Tensor:
    """Which joints ``(S, V)`` are of a limb that was lost."""
    return lost[:, limbs.clamp(min=0)] & (limbs >= 0)


def _yawed(clips: Tensor, turn: Tensor) -> Tensor:
    """Clips turned about the upright axis y by a share of a whole turn, in units of 2**-24."""
    angle = (turn.to(clips.dtype) * (2 * math.pi / _ONE))[:, None, None]
    x, y, z = clips.unbind(-1)
    return torch.stack([angle.cos() * x + angle.sin() * z, y, angle.cos() * z - angle.sin() * x], dim=-1)
