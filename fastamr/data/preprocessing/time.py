"""Pre-processing steps that change the frames of a clip for all its bodies together."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..packed.checks import MAX_CLIP_FRAMES, RATES
from ..packed.dataset import PackedSkeletons
from ..packed.ragged import ranges, row_owner
from .body_frame import present_frames
from .geometry import Step
from .rebuild import keep_frames

# A rate may come with a model of somebody else: it must not fill the memory (choice).
_MOST_GROWTH, _LEAST_LIMIT = 100, 1_000_000


@dataclass(frozen=True)
class Resample(Step):
    """Change the frame rate, or the number of frames of a clip, by linear interpolation between neighbouring frames.

    Bodies of a clip keep their timing. A joint whose neighbours were not both seen takes the nearer one; where that
    was not seen either it is not seen. A body so short that no new frame falls on it keeps the nearest one.
    Nothing is smoothed before frames are left out, as in the field's own resizing of clips. A label of a frame is that
    of the nearest old one.

    Args:
        fps: the new rate, frames per second; each clip keeps its duration.
        frames: instead of a rate, the new number of frames of every clip, first and last frame included.
        source: the rate of clips whose rate is unknown.

    Raises:
        ValueError: a number that is not positive, or a clip of unknown rate.
    """

    fps: float = 30.0
    frames: int | None = None
    source: float | None = None
    name: ClassVar[str] = "resample"

    def __post_init__(self) -> None:
        for what in ("fps", "frames", "source"):
            value = getattr(self, what)
            number = isinstance(value, (int, float)) and 0 < value < float("inf")
            if not number and (value is not None or what == "fps"):
                raise ValueError(f"{what} of step 'resample' is {value}, expected a positive number")
            if number and what != "frames" and not RATES[0] <= value <= RATES[1]:
                raise ValueError(
                    f"{what} of step 'resample' is {value:g}, expected {RATES[0]:g} to {RATES[1]:g} frames a second"
                )
        if self.frames is not None and self.frames != int(self.frames):
            raise ValueError(f"frames of step 'resample' is {self.frames}, expected a whole number")
        if self.frames is not None and self.frames > MAX_CLIP_FRAMES:
            raise ValueError(
                f"frames of step 'resample' is {self.frames}, expected at most {MAX_CLIP_FRAMES}, the longest clip"
            )

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set with the new frames."""
        stride, fps = self._strides(data)
        step = stride[data.body_clip]
        first = data.body_start.double()
        last = first + data.offsets.diff() - 1
        # The new frames that lie on the body; the small number forgives rounding.
        start = torch.ceil(first / step - 1e-9)
        lengths = (torch.floor(last / step + 1e-9) - start + 1).clamp(min=0)
        nearest = torch.round(first / step)
        if self.frames is not None:
            # A clip of one frame is repeated; a body behind the only new frame joins it.
            lengths = torch.where(data.clip_frames()[data.body_clip] == 1, self.frames, lengths)
            nearest = nearest.clamp(max=self.frames - 1)
        most = max(_LEAST_LIMIT, _MOST_GROWTH * int(data.offsets[-1]))
        if self.frames is None and float(lengths.sum()) > most:
            raise ValueError(
                f"fps={self.fps:g} of step 'resample' makes {float(lengths.sum()):.3g} frames of {data.offsets[-1]}, "
                f"expected at most {most}: give a lower rate, or the right source=RATE"
            )
        start = torch.where(lengths > 0, start, nearest).long()
        lengths = lengths.clamp(min=1).long()
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        owner = row_owner(offsets)
        wanted = ranges(start, lengths).double() * step[owner]
        place = (wanted.clamp(min=first[owner], max=last[owner]) - first[owner]) + data.offsets[owner]
        coords, valid = _between(data, place, data.offsets[owner + 1] - 1)
        labels = None if data.frame_labels is None else data.frame_labels[place.round().long()]
        return dataclasses.replace(
            data, coords=coords, valid=valid, offsets=offsets, body_start=start, fps=fps, frame_labels=labels
        )

    def _strides(self, data: PackedSkeletons) -> tuple[Tensor, Tensor]:
        """Return how many old frames a new one advances in each clip ``(N,)`` float64, and the new rates."""
        if self.frames is not None:
            last = (data.clip_frames() - 1).double()
            # The second of two frames would be the last; of one frame there is no second, so it lies behind the clip.
            stride = last / (self.frames - 1) if self.frames > 1 else last + 1
            stride = torch.where(last > 0, stride, 1.0)
            return stride, data.fps / stride.float()
        rates = data.fps
        if self.source is not None:
            rates = torch.where(rates.isnan(), self.source, rates)
        unknown = ~(rates > 0)
        if bool(unknown.any()):
            clip = int(unknown.nonzero()[0])
            raise ValueError(
                f"step 'resample': the frame rate of {int(unknown.sum())} clips is unknown, the first is clip {clip} "
                f"({data.names[clip]!r}); give it as resample:fps={self.fps},source=RATE"
            )
        return rates.double() / self.fps, torch.full_like(data.fps, self.fps)


def _between(data: PackedSkeletons, place: Tensor, last: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return coordinates and visibility at fractional rows.

    Args:
        data: the data set.
        place: ``(R,)`` float64 rows.
        last: ``(R,)`` int64, the last row of the body of each.
    """
    before = (place + 1e-9).floor().long()
    after = torch.minimum(before + 1, last)
    share = (place - before).clamp(min=0).float()
    share = torch.where(share < 1e-6, 0.0, share)
    seen = present_frames(data)[:, None].expand(data.coords.shape[:2])
    if data.valid is not None:
        seen = seen & data.valid
    first, second = seen[before], seen[after]
    near = torch.where(share > 0.5, 1.0, 0.0)[:, None].expand(first.shape)
    # Both neighbours seen: in proportion. Only one: that one, if it is the nearer.
    weight = torch.where(first & second, share[:, None], near)[..., None]
    coords = data.coords[before].float() * (1 - weight) + data.coords[after].float() * weight
    visible = torch.where(near > 0, second, first) | (first & second)
    coords = torch.where(visible[..., None], coords, 0.0)
    return coords, None if data.valid is None else visible


@dataclass(frozen=True)
class CloseGaps(Step):
    """Leave out the frames in which no body of the clip is present; bodies of a clip stay in step.

    The clip then begins with its first frame that has a body. Source: SGN's and CTR-GCN's preparation of NTU RGB+D,
    which drop such frames.
    """

    name: ClassVar[str] = "close_gaps"

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        """Return the data set without those frames; clips without any body are dropped and listed."""
        present = present_frames(data)
        if not bool(present.any()):
            return keep_frames(data, present)
        frames = data.clip_frames()
        base = frames.cumsum(0) - frames
        owner = row_owner(data.offsets)
        # The place of each row on the line of all clips' frames.
        start = base[data.body_clip] + data.body_start
        line = start[owner] + torch.arange(data.num_frames, device=data.device) - data.offsets[owner]
        occupied = torch.zeros(int(frames.sum()), dtype=torch.bool, device=data.device)
        occupied[line[present]] = True
        rank = occupied.cumsum(0) - occupied.long()
        kept = keep_frames(data, occupied[line])
        # keep_frames leaves the start of a body in the old numbering; its first row gives the new one.
        first = occupied[line].nonzero().squeeze(1)[kept.offsets[:-1]]
        fresh = rank[line[first]] - rank[base[data.body_clip[owner[first]]]]
        return dataclasses.replace(kept, body_start=fresh)
