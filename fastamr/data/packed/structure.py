"""The fields of packed data and what follows from them alone; the base of PackedSkeletons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...skeleton import SkeletonLayout
from .split import Split


@dataclass(eq=False, repr=False)
class PackedFields:
    """The fields of :class:`~fastamr.data.PackedSkeletons`, described there; nothing is checked here."""

    coords: Tensor
    offsets: Tensor
    body_clip: Tensor
    body_start: Tensor
    labels: Tensor
    fps: Tensor
    layout: SkeletonLayout
    names: list[str]
    columns: dict[str, Tensor] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    valid: Tensor | None = None
    label_names: tuple[str, ...] = ()
    column_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: tuple[dict[str, Any], ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    frame_labels: Tensor | None = None
    body_names: list[str] = field(default_factory=list)

    @property
    def num_clips(self) -> int:
        """``N``."""
        return self.labels.numel()

    @property
    def num_bodies(self) -> int:
        """``B``, the number of body sequences."""
        return self.body_clip.numel()

    @property
    def num_frames(self) -> int:
        """``F``, the frames of all bodies together."""
        return self.coords.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are; coordinates that were joined without a copy are on the CPU."""
        return self.offsets.device

    def clip_frames(self) -> Tensor:
        """Return ``(N,)`` int64: the frames of each clip, up to the last frame of its bodies."""
        ends = self.body_start + self.offsets.diff()
        return torch.zeros_like(self.labels).scatter_reduce_(0, self.body_clip, ends, "amax")
