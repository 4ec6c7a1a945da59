"""Data sets made from others: coordinates transformed, frames left out, values shared by a clip's bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ..packed.dataset import PackedSkeletons
from ..packed.ragged import first_true, row_owner

# Rows transformed at a time: few enough to stay in the processor's cache.
_CHUNK = 1 << 13


def transform(data: PackedSkeletons, function: Callable[[Tensor, slice], Tensor]) -> PackedSkeletons:
    """Return the data set with new float32 coordinates; frames without the body and unseen joints stay 0.

    Args:
        data: the data set.
        function: from some rows of coordinates ``(n, V, C)`` float32, and which rows they are, to the new ones.
    """
    result = torch.empty(data.coords.shape, dtype=torch.float32, device=data.device)
    for start in range(0, data.num_frames, _CHUNK):
        rows = slice(start, min(start + _CHUNK, data.num_frames))
        block = data.coords[rows].float()
        missing = (block == 0).flatten(1).all(1)[:, None]
        if data.valid is not None:
            missing = missing | ~data.valid[rows]
        result[rows] = function(block, rows).masked_fill_(missing[..., None], 0.0)
    return dataclasses.replace(data, coords=result)


def share(values: Tensor, known: Tensor, default: float, data: PackedSkeletons, per: str) -> Tensor:
    """Return a value for each body: its own, or that of the clip's first body whose value is known.

    Args:
        values: ``(B,)``.
        known: ``(B,)`` bool, where ``values`` holds.
        default: for bodies without a value.
        data: the data set.
        per: ``"body"`` or ``"clip"``.
    """
    source = torch.where(known, torch.arange(known.numel(), device=known.device), -1)
    if per == "clip":
        source = first_true(known, data.body_clip, data.num_clips)[data.body_clip]
    return torch.where(source >= 0, values[source.clamp(min=0)], default)


def keep_frames(data: PackedSkeletons, keep: Tensor) -> PackedSkeletons:
    """Return the data set with some of its frames; bodies without a frame go, clips without a body are listed.

    Args:
        data: the data set.
        keep: ``(F,)`` bool.

    Raises:
        ValueError: no frame is left.
    """
    if bool(keep.all()):
        return data
    if not bool(keep.any()):
        raise ValueError(
            f"every frame of the {data.num_clips} clips is empty (all coordinates 0); nothing is left"
        )
    owner = row_owner(data.offsets)
    first = first_true(keep, owner, data.num_bodies)
    bodies = (first >= 0).nonzero().squeeze(1)
    lengths = torch.bincount(owner[keep], minlength=data.num_bodies)[bodies]
    clips = torch.zeros(data.num_clips, dtype=torch.bool, device=data.device)
    clips[data.body_clip[bodies]] = True
    chosen = clips.nonzero().squeeze(1)
    return dataclasses.replace(
        data,
        coords=data.coords[keep],
        valid=None if data.valid is None else data.valid[keep],
        frame_labels=None if data.frame_labels is None else data.frame_labels[keep],
        offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        body_clip=(clips.cumsum(0) - 1)[data.body_clip[bodies]],
        body_start=data.body_start[bodies] + first[bodies] - data.offsets[bodies],
        labels=data.labels[chosen],
        fps=data.fps[chosen],
        names=[data.names[place] for place in chosen.tolist()],
        columns={name: column[chosen] for name, column in data.columns.items()},
        splits={name: split.take(chosen) for name, split in data.splits.items()},
        body_names=[data.body_names[place] for place in bodies.tolist()] if data.body_names else [],
        dropped=data.dropped
        | {data.names[place]: "no body" for place in (~clips).nonzero().squeeze(1).tolist()},
    )
