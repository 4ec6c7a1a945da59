"""Sample clips of one length from ragged sequences on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import reference
from .common.backends import Backend, Problem, can_always, choose, declare
from .common.checks import (
    check_device,
    check_indices,
    check_seed,
    check_sequences,
    check_shape,
    check_tensor,
)
from .common.precision import exact
from .common.registration import fake_of
from .common.triton_support import TRITON

declare("sample_clips", TRITON, Backend("reference", can_always))

# The kernel writes one channel after the other.
_TRITON_CHANNELS = 16


@torch.library.custom_op("fastamr::sample_clips", mutates_args=())
def _op(
    coords: Tensor,
    offsets: Tensor,
    sequence_ids: Tensor,
    frames: int,
    seed: Tensor | None,
    crop: list[float],
    min_frames: int,
    max_angle: float,
    group: Tensor | None,
    backend: str,
) -> Tensor:
    check_indices("sequence_ids", sequence_ids, offsets.shape[0] - 1, "sequence")
    check_sequences(offsets, sequence_ids, coords.shape[0])
    if backend == "triton":
        from ..kernels.sample_clips import sample_clips as run
    else:
        run = reference.sample_clips
    with exact(coords):
        return run(
            coords,
            offsets,
            sequence_ids,
            frames,
            seed,
            crop=tuple(crop),
            min_frames=min_frames,
            max_angle=max_angle,
            group=group,
        )


@fake_of(_op)
def _(coords: Tensor, sequence_ids: Tensor, frames: int) -> Tensor:
    dtype = torch.promote_types(torch.float32, coords.dtype)
    return coords.new_empty((len(sequence_ids), frames, *coords.shape[1:]), dtype=dtype)


def _check_options(
    frames: int,
    seed: Tensor | None,
    crop: tuple[float, ...],
    min_frames: int,
    max_angle: float,
    channels: int,
) -> None:
    if frames < 1:
        raise ValueError(f"frames={frames} must be at least 1")
    if len(crop) not in (1, 2) or not all(0 < share <= 1 for share in crop) or list(crop) != sorted(crop):
        raise ValueError(
            f"crop={crop} must be (low, high) with 0 < low <= high <= 1 for a random share of the frames, "
            "or (share,) for the central one"
        )
    if min_frames < 1:
        raise ValueError(f"min_frames={min_frames} must be at least 1")
    if max_angle < 0:
        raise ValueError(f"max_angle={max_angle} must be at least 0 radians")
    if max_angle > 0 and channels not in (2, 3):
        raise ValueError(f"rotation needs 2 or 3 channels, got C={channels}: set max_angle=0")
    if seed is None and (len(crop) == 2 or max_angle > 0):
        raise ValueError("seed=None draws nothing: pass a seed, or crop=(share,) with max_angle=0")


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
    """Crop, resize and rotate ragged sequences into clips (the recipe of MAMP and AMR); carries no gradient.

    A random share of the frames is cut out at a random position, resized linearly (align_corners=False) and turned by
    ``Rz @ Ry @ Rx``, each angle uniform. Crops are computed in integers, so every back end cuts the same frames.

    Args:
        coords: ``(F, V, C)`` floating point, all frames of all sequences.
        offsets: ``(B+1,)`` int64; sequence b owns frames ``offsets[b] .. offsets[b+1]-1``, at least one.
        sequence_ids: ``(S,)`` int64 in ``0 .. B-1``.
        frames: T, frames of a clip.
        seed: ``(2,)`` int64; may be None when nothing is random.
        crop: ``(low, high)`` share of the frames, or ``(share,)`` for the central share (evaluation: ``(0.95,)``).
        min_frames: a random crop is at least this long where there are as many frames.
        max_angle: largest Euler angle in radians; 0 does not rotate.
        group: ``(S,)`` int64; sequences of one group (the bodies of a clip) share crop and rotation.

    Returns:
        ``(S, T, V, C)`` float32 (float64 for float64 coordinates).

    Raises:
        ValueError: a shape or option that does not fit.
        TypeError: a wrong dtype.
    """
    check_tensor("coords", coords, 3, "(F, V, C)")
    indices = (
        ("offsets", offsets, "(B+1,)"),
        ("sequence_ids", sequence_ids, "(S,)"),
        ("group", group, "(S,)"),
    )
    for name, value, form in indices:
        if value is not None:
            check_tensor(name, value, 1, form, (torch.int64,))
            check_device(name, value, coords.device, "coords")
    if offsets.shape[0] == 0:
        raise ValueError("offsets is empty: expected (B+1,) numbers")
    if group is not None:
        check_shape("group", group, tuple(sequence_ids.shape), "(S,)")
    if seed is not None:
        check_seed(seed)
        check_device("seed", seed, coords.device, "coords")
    _check_options(frames, seed, tuple(crop), min_frames, max_angle, coords.shape[2])
    many = coords.shape[2] > _TRITON_CHANNELS
    refusals = (f"more than {_TRITON_CHANNELS} channels",) if many else ()
    sizes = {"sequences": len(sequence_ids), "frames": frames, "joints": coords.shape[1]}
    name = choose("sample_clips", Problem(coords.device.type, coords.dtype, (), sizes, refusals))
    coords = coords.detach()
    return _op(coords, offsets, sequence_ids, frames, seed, list(crop), min_frames, max_angle, group, name)
