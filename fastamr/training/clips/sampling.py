"""From ragged frames to augmented clips of one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ... import ops
from ...data.packed.mapped import mapped_files
from ...features.sampling import sample_seen
from .augmentation import Augmentation

if TYPE_CHECKING:
    from ...data import PackedSkeletons


class FrameRows(NamedTuple):
    """The frames that a batch is sampled from; all tensors on one device.

    Attributes:
        coords: ``(F, V, C)`` float32 or float16, ragged frames.
        valid: ``(F, V, 1)`` float16, 1 where the joint was seen; None = all were.
        offsets: ``(B+1,)`` int64, where each sequence starts.
        sequences: ``(S,)`` int64 in ``0 .. B-1``, the sequences of the batch.
        group: ``(S,)`` int64, the clip of each sequence: one clip, one crop and rotation.
        empty: ``(S,)`` bool, body slots without a body, which become all-zero clips; None = there are none.
        numbers: ``(S,)`` int64, each sequence's number among all of the data, which names its lost limbs and noise.
    """

    coords: Tensor
    valid: Tensor | None
    offsets: Tensor
    sequences: Tensor
    group: Tensor
    empty: Tensor | None
    numbers: Tensor


class ClipSampler:
    """Draws augmented clips of one length from packed body sequences.

    Bodies of one clip share crop, rotation, mirroring, size and projection when they fall into the same batch, because
    their clip is their group; each has noise and lost limbs of its own.

    Args:
        data: packed skeletons; on the device where the clips are wanted, unless another place hands in the rows.
        frames: frames of a sampled clip.
        crop: smallest and largest share of the frames that is kept.
        min_frames: frames that a crop keeps at least.
        max_angle: bound of each Euler angle, in radians.
        resident: whether it is called with numbers of sequences; if rows are always handed in, the whole mask is not
            turned into numbers.
        empty_bodies: whether sequences of negative numbers may be asked for, which are empty body slots.
        augmentation: what else is changed, its tables on the device where the clips are wanted; None = nothing.
    """

    def __init__(
        self,
        data: PackedSkeletons,
        frames: int,
        *,
        crop: tuple[float, float] = (0.5, 1.0),
        min_frames: int = 64,
        max_angle: float = 0.3,
        empty_bodies: bool = False,
        resident: bool = True,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.coords, self.offsets, self.body_clip = data.coords, data.offsets, data.body_clip
        self.valid = data.valid
        self.seen = (
            data.valid.to(torch.float16).unsqueeze(-1) if resident and data.valid is not None else None
        )
        self.files = mapped_files(data.coords)
        self.frames, self.crop, self.min_frames, self.max_angle = frames, crop, min_frames, max_angle
        self.empty_bodies, self.augmentation = empty_bodies, augmentation

    def __call__(self, sequences: Tensor, seed: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return clips ``(S, T, V, C)`` float32 and their validity ``(S, T, V)`` bool, or None without a
        mask (and without lost limbs).

        A resampled joint is valid when every frame that it was interpolated from is. An empty body slot counts as
        seen everywhere: it is a body at the origin, as in the public code.

        Args:
            sequences: ``(S,)`` int64, indices of body sequences; negative for an empty slot.
            seed: ``(2,)`` int64, key and counter; left unchanged.
        """
        assert self.seen is not None or self.valid is None
        empty = None
        if self.empty_bodies:
            empty, sequences = sequences < 0, sequences.clamp(min=0)
        group = self.body_clip[sequences]
        rows = FrameRows(self.coords, self.seen, self.offsets, sequences, group, empty, sequences)
        return self.sample(rows, seed)

    def check_file(self) -> None:
        """Raise where a file behind the frames was cut short; takes about a microsecond each.

        Raises:
            OSError: it was.
        """
        for file in self.files:
            file.check()

    def sample(self, rows: FrameRows, seed: Tensor) -> tuple[Tensor, Tensor | None]:
        """As calling the sampler, from frames that lie anywhere."""
        cut: dict[str, Any] = {"crop": self.crop, "min_frames": self.min_frames, "group": rows.group}
        clips, valid = sample_seen(
            rows.coords,
            rows.valid,
            rows.offsets,
            rows.sequences,
            self.frames,
            seed,
            max_angle=self.max_angle,
            **cut,
        )
        if self.augmentation is not None:
            flat = self._flat(rows, seed, cut) if self.augmentation.keep_flat else None
            clips, valid = self.augmentation(
                clips, valid, seed, group=rows.group, numbers=rows.numbers, flat=flat
            )
        if rows.empty is not None:
            clips = clips.masked_fill_(rows.empty[:, None, None, None], 0.0)
            valid = None if valid is None else valid.logical_or_(rows.empty[:, None, None])
        return clips, valid

    def _flat(self, rows: FrameRows, seed: Tensor, cut: dict[str, Any]) -> Tensor:
        """Return which sequences ``(S,)`` bool have no depth: a rotation would give them one."""
        depth = ops.sample_clips(
            rows.coords[..., 2:], rows.offsets, rows.sequences, self.frames, seed, max_angle=0.0, **cut
        )
        return (depth == 0).flatten(1).all(1)
