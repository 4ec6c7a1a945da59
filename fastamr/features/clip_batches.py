"""Batches of whole clips: all bodies of some clips, sampled, and whom each body belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .extract import FIELD_SLOTS
from .sampling import sample_bodies

if TYPE_CHECKING:
    from ..data import PackedSkeletons


class ClipBatch(NamedTuple):
    """Bodies of a batch of B clips.

    Attributes:
        clips: ``(S, T, V, C)`` float32.
        valid: ``(S, T, V)`` bool, or None where the data has no mask.
        owner: ``(S,)`` int64, the clip in the batch of each body, 0 to B - 1.
    """

    clips: Tensor
    valid: Tensor | None
    owner: Tensor


class ClipBatches:
    """Looks up and samples the bodies of clips.

    Args:
        data: packed data.
        frames: T, frames of a sampled body.
        bodies: ``"existing"``, or ``"field"`` to fill each clip up to two bodies with all-zero ones, as the released
            code does.
    """

    def __init__(self, data: PackedSkeletons, frames: int, bodies: str = "existing") -> None:
        self.data, self.frames = data, frames
        self.slots = FIELD_SLOTS if bodies == "field" else 0
        self.order = data.body_clip.argsort(stable=True)
        self.counts = torch.bincount(data.body_clip, minlength=data.num_clips)
        self.starts = self.counts.cumsum(0) - self.counts

    def bodies(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return the body sequences of ``clips (B,)`` and their owners, both ``(S,)`` int64."""
        counts = self.counts[clips]
        owner = torch.arange(len(clips), device=clips.device).repeat_interleave(counts)
        within = torch.arange(len(owner), device=clips.device) - (counts.cumsum(0) - counts)[owner]
        return self.order[self.starts[clips][owner] + within], owner

    def test(self, clips: Tensor) -> ClipBatch:
        """Sample clips ``(B,)`` as for frozen features: the central share of the frames, not turned."""
        ids, owner = self.bodies(clips)
        return self._filled(*sample_bodies(self.data, ids, self.frames), owner, len(clips))

    def _filled(self, clips: Tensor, valid: Tensor | None, owner: Tensor, size: int) -> ClipBatch:
        missing = (self.slots - torch.bincount(owner, minlength=size)).clamp(min=0)
        empty = torch.arange(size, device=owner.device).repeat_interleave(missing)
        if len(empty) == 0:
            return ClipBatch(clips, valid, owner)
        if valid is not None:
            valid = torch.cat([valid, valid.new_ones(len(empty), *valid.shape[1:])])
        clips = torch.cat([clips, clips.new_zeros(len(empty), *clips.shape[1:])])
        return ClipBatch(clips, valid, torch.cat([owner, empty]))
