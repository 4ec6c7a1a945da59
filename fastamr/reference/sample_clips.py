"""Crop, resize and rotate ragged sequences into clips of one length."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import STREAM_CROP, STREAM_ROTATE, philox_words

# Crops are computed in integers with 24 fractional bits, so that every back end finds the same frames.
_BITS = 24
_ONE = 1 << _BITS


def crop_bounds(
    lengths: Tensor, words: Tensor | None, crop: tuple[float, ...], min_frames: int
) -> tuple[Tensor, Tensor]:
    """First frame and number of frames of each crop.

    Args:
        lengths: ``(S,)`` int64 frames of each sequence, at least 1.
        words: ``(S, 2)`` random 32-bit words, or None for the central share.
        crop: ``(low, high)`` for a random share, ``(share,)`` for the central one.
        min_frames: a random crop is at least this long where there are as many frames.
    """
    low = round(crop[0] * _ONE)
    if words is None:
        skip = ((_ONE - low) * lengths) >> (_BITS + 1)
        return skip, lengths - 2 * skip
    uniform = words >> (32 - _BITS)
    share = low + (((round(crop[1] * _ONE) - low) * uniform[:, 0]) >> _BITS)
    count = torch.minimum(((lengths * share) >> _BITS).clamp(min=min_frames), lengths)
    first = ((lengths - count + 1) * uniform[:, 1]) >> _BITS
    return first, count


def resize_positions(count: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Left frame, right frame and right weight ``(S, frames)`` of a linear resize with align_corners=False."""
    step = torch.arange(frames, device=count.device)
    position = ((2 * step[None] + 1) * count[:, None] - frames).clamp(min=0)
    left = torch.minimum(position // (2 * frames), count[:, None] - 1)
    right = torch.minimum(left + 1, count[:, None] - 1)
    return left, right, (position - left * 2 * frames).float() / (2 * frames)


def rotations(words: Tensor, channels: int, max_angle: float) -> Tensor:
    """Rotations ``(S, C, C)``: ``Rz @ Ry @ Rx``, each angle uniform in +-max_angle radians; in 2-D one angle."""
    angles = ((words >> (32 - _BITS)).float() / _ONE * 2 - 1) * max_angle
    cos, sin = angles.cos(), angles.sin()
    if channels == 2:
        rows = [cos[:, 0], -sin[:, 0], sin[:, 0], cos[:, 0]]
        return torch.stack(rows, dim=1).unflatten(1, (2, 2))
    one, zero = torch.ones_like(cos[:, 0]), torch.zeros_like(cos[:, 0])
    x = torch.stack([one, zero, zero, zero, cos[:, 0], -sin[:, 0], zero, sin[:, 0], cos[:, 0]], 1)
    y = torch.stack([cos[:, 1], zero, sin[:, 1], zero, one, zero, -sin[:, 1], zero, cos[:, 1]], 1)
    z = torch.stack([cos[:, 2], -sin[:, 2], zero, sin[:, 2], cos[:, 2], zero, zero, zero, one], 1)
    return z.view(-1, 3, 3) @ y.view(-1, 3, 3) @ x.view(-1, 3, 3)


def sample_clips(
    coords: Tensor,
    offsets: Tensor,
    sequence_ids: Tensor,
    frames: int,
    seed: Tensor | None,
    *,
    crop: tuple[float, ...] = (0.5, 1.0),
    min_frames: int = 64,
    max_angle: float = 0.3,
    group: Tensor | None = None,
) -> Tensor:
    """Clips ``(S, frames, V, C)``; see :func:`fastamr.ops.sample_clips`."""
    begin = offsets[sequence_ids]
    lengths = offsets[sequence_ids + 1] - begin
    rows = torch.arange(len(sequence_ids), device=coords.device) if group is None else group
    words = philox_words(seed, rows, 2, STREAM_CROP) if seed is not None and len(crop) == 2 else None
    first, count = crop_bounds(lengths, words, crop, min_frames)
    left, right, weight = resize_positions(count, frames)
    origin = (begin + first)[:, None]
    compute = torch.promote_types(torch.float32, coords.dtype)
    before, after = coords[origin + left].to(compute), coords[origin + right].to(compute)
    clips = torch.lerp(before, after, weight.to(compute)[..., None, None])
    if max_angle == 0 or seed is None:
        return clips
    turn = rotations(philox_words(seed, rows, 3, STREAM_ROTATE), coords.shape[2], max_angle).to(compute)
    return (clips.flatten(1, 2) @ turn.transpose(1, 2)).view_as(clips)
