"""Ragged bodies as clips of one length, and which of their joints were seen: for training, evaluation and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import ops
from ..data.packed.mapped import Rows, parts_of
from ..data.packed.ragged import ranges

if TYPE_CHECKING:
    from ..data import PackedSkeletons

CENTRAL_SHARE = 0.95
# Interpolation between two valid frames gives 1 up to rounding; the nearest invalid frame shows well below it.
_FULLY_VALID = 1.0 - 1e-6


def sample_seen(
    coords: Tensor,
    valid: Tensor | None,
    offsets: Tensor,
    sequences: Tensor,
    frames: int,
    seed: Tensor | None = None,
    *,
    max_angle: float = 0.0,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return clips ``(S, T, V, C)`` and which of their joints were seen ``(S, T, V)`` bool, None without a mask.

    A resampled joint counts as seen where every frame is that it was interpolated from.

    Args:
        coords: ``(F, V, C)`` floating, ragged frames.
        valid: ``(F, V, 1)`` floating, 1 where the joint was seen; None = all were.
        offsets: ``(B+1,)`` int64, see :func:`fastamr.ops.sample_clips`, as all that follows.
        sequences: ``(S,)`` int64.
        frames: T.
        seed: ``(2,)`` int64.
        max_angle: in radians.
        options: ``crop``, ``min_frames`` and ``group``.
    """
    clips = ops.sample_clips(coords, offsets, sequences, frames, seed, max_angle=max_angle, **options)
    if valid is None:
        return clips, None
    seen = ops.sample_clips(valid, offsets, sequences, frames, seed, max_angle=0.0, **options)
    return clips, seen[..., 0] > _FULLY_VALID


def sample_bodies(
    data: PackedSkeletons,
    ids: Tensor,
    frames: int,
    *,
    crop: tuple[float, ...] = (CENTRAL_SHARE,),
    seed: Tensor | None = None,
    min_frames: int = 1,
    max_angle: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Return bodies as clips ``(S, T, V, C)`` and which of their joints were seen ``(S, T, V)``.

    By default as for evaluation; with a seed the bodies of a clip share crop and rotation, which
    :func:`fastamr.ops.sample_clips` describes.
    """
    coords, valid, offsets, sequences = _frames_of(data, ids)
    return sample_seen(
        coords,
        None if valid is None else valid[..., None].float(),
        offsets,
        sequences,
        frames,
        seed,
        crop=crop,
        min_frames=min_frames,
        max_angle=max_angle,
        group=None if seed is None else data.body_clip[ids],
    )


def _frames_of(data: PackedSkeletons, ids: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Return coordinates, mask, offsets and sequences to sample bodies from: those of all bodies, or of these alone.

    Of these alone where a mask would become numbers for all, and where the frames lie in several tensors.
    """
    joined = len(parts_of(data.coords)) > 1
    if not joined and (data.valid is None or data.coords.is_cuda):
        return data.coords, data.valid, data.offsets, ids
    starts = data.offsets[ids]
    lengths = data.offsets[ids + 1] - starts
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    within = torch.arange(len(ids), device=ids.device)
    if not joined:
        rows = ranges(starts, lengths)
        return data.coords[rows], None if data.valid is None else data.valid[rows], offsets, within
    places = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    coords = _copied(data.coords, places)
    return coords, None if data.valid is None else _copied(data.valid, places), offsets, within


def _copied(tensor: Tensor, places: list[tuple[int, int]]) -> Tensor:
    rows = Rows(tensor)
    return torch.cat([rows(*place) for place in places]).to(tensor.dtype)
