"""Near duplicates: the same motion with another origin, some noise, or cut a few frames earlier or later.

Two bodies are near duplicates when, after the best shift in time and of the origin, what is left is small beside
their motion and small beside a body. Pairs are proposed by a descriptor (:mod:`.motion`), sifted on four values a
frame, many pairs at once, and then compared in full. Sifting loses nothing, as a projection brings sequences
closer, never further apart.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..packed.dataset import PackedSkeletons
from .blocks import Flags, Floats, Index
from .candidates import candidate_pairs
from .motion import Described, about_middle, describe, mean_place, read_motion, root_mean_square

# Frames that a batch of the sift holds, padded.
_BATCH = 1 << 18


@dataclass(frozen=True)
class NearOptions:
    """When two body sequences count as one motion; all values are choices.

    Takes of one gesture by one person differ by 7 % of their motion and more in the optical motion capture that
    the defaults were set on, so that repeats are no duplicates.

    Args:
        max_shift: frames by which one may start, and end, earlier than the other.
        residual: what is left may be this share of the motion (root mean square over joints, and over the frames
            smoothed by 5).
        pose: and this share of the body's size.
        min_frames: fewest frames that both must share after smoothing; shorter sequences are compared exactly only.

    Raises:
        ValueError: a value out of range.
    """

    max_shift: int = 5
    residual: float = 0.06
    pose: float = 0.05
    min_frames: int = 8

    def __post_init__(self) -> None:
        if self.max_shift < 0:
            raise ValueError(f"max_shift={self.max_shift} must be at least 0 frames")
        if self.min_frames < 2:
            raise ValueError(f"min_frames={self.min_frames} must be at least 2 frames, which show a motion")
        for name in ("residual", "pose"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a share above 0, at most 1")


class NearPairs(NamedTuple):
    """Pairs of bodies that show the same motion.

    Attributes:
        bodies: ``(P, 2)`` int64, the lower index first.
        shift: ``(P,)`` int64: frame ``t`` of the first one is frame ``t - shift`` of the second.
        residual: ``(P,)`` float64, root mean square of what differs, as a share of the motion.
        compared: pairs that the descriptor proposed.
        limited: bodies with more candidates than were looked at (32); some of their copies may be missing.
    """

    bodies: Index
    shift: Index
    residual: NDArray[np.float64]
    compared: int = 0
    limited: int = 0


def near_pairs(
    data: PackedSkeletons, clips: Flags | None = None, options: NearOptions | None = None
) -> NearPairs:
    """Find the pairs of bodies that show the same motion.

    A body that hardly moves (less than 0.1 % of its size) or has too few frames is in no pair.

    Args:
        data: the data set.
        clips: ``(N,)`` bool, the clips to search among; None = all.
        options: when two sequences count as one motion.
    """
    options = options or NearOptions()
    described = describe(data, clips, options.min_frames)
    empty = NearPairs(np.zeros((0, 2), np.int64), np.zeros(0, np.int64), np.zeros(0))
    if len(described.bodies) < 2:
        return empty
    candidates, limited = candidate_pairs(described, options.residual, options.max_shift)
    allowed = np.minimum(options.residual * described.motion, options.pose * described.size)
    allowed = np.minimum(allowed[candidates[:, 0]], allowed[candidates[:, 1]])
    likely = _sift(data, described, candidates, allowed, options)
    read = functools.lru_cache(maxsize=1024)(lambda body: read_motion(data, body))
    found = []
    for (i, j), limit in zip(candidates[likely].tolist(), allowed[likely].tolist(), strict=True):
        first, second = int(described.bodies[i]), int(described.bodies[j])
        shift, left = align(read(first), read(second), options)
        if left <= limit:
            found.append((first, second, shift, left / float(min(described.motion[i], described.motion[j]))))
    if not found:
        return empty._replace(compared=len(candidates), limited=limited)
    firsts, seconds, shifts, residuals = zip(*found, strict=True)
    return NearPairs(
        np.stack([firsts, seconds], axis=1), np.array(shifts), np.array(residuals), len(candidates), limited
    )


def align(x: Floats, y: Floats, options: NearOptions) -> tuple[int, float]:
    """Return the shift in time at which two sequences differ least, and the root mean square difference.

    At shift ``s`` frame ``t`` of ``x`` is compared with frame ``t - s`` of ``y``. The difference of the origins is
    taken out over the frames that both share; infinity where they share too few.

    Args:
        x: ``(T, V, C)``.
        y: ``(U, V, C)``.
        options: largest shift and fewest frames.
    """
    best = (0, np.inf)
    for shift in _shifts(options):
        begin, end = max(shift, 0), min(len(x), len(y) + shift)
        if not _fits(len(x), len(y), shift, options):
            continue
        apart = x[begin:end] - y[begin - shift : end - shift]
        left = root_mean_square(apart) ** 2 - float(np.square(mean_place(apart)).sum())
        if left < best[1]:
            best = (shift, left)
    return best[0], float(np.sqrt(max(best[1], 0.0)))


def _shifts(options: NearOptions) -> list[int]:
    """Return the shifts from the smallest one on, so that of equal ones the smaller wins."""
    return sorted(range(-options.max_shift, options.max_shift + 1), key=abs)


def _fits(frames: int, others: int, shift: int, options: NearOptions) -> bool:
    """Tell whether neither start nor end differ by too much and enough frames are shared."""
    shared = min(frames, others + shift) - max(shift, 0)
    return shared >= options.min_frames and abs(others + shift - frames) <= options.max_shift


def _sift(
    data: PackedSkeletons, described: Described, pairs: Index, allowed: Floats, options: NearOptions
) -> Flags:
    """Return ``(P,)``: which pairs can be near duplicates, from the motion along four axes."""
    likely = np.zeros(len(pairs), dtype=bool)
    if len(pairs) == 0:
        return likely
    needed = np.unique(pairs)
    place = np.zeros(len(described.bodies), dtype=np.int64)
    place[needed] = np.arange(len(needed))
    tracks = [_track(read_motion(data, int(body)), described.axes) for body in described.bodies[needed]]
    longest = np.maximum(described.frames[pairs[:, 0]], described.frames[pairs[:, 1]])
    order = np.argsort(longest, kind="stable")
    while len(order):
        # Sorted by length, so the batch is filled up for the longest sequence but for a little padding.
        size = max(1, _BATCH // int(longest[order[min(_BATCH // int(longest[order[0]]), len(order) - 1)]]))
        batch, order = order[:size], order[size:]
        first, second = (_padded([tracks[k] for k in place[pairs[batch, side]]]) for side in (0, 1))
        left = _least(first, second, described.frames[pairs[batch]], data.layout.num_joints, options)
        likely[batch] = left <= allowed[batch] * 1.001
    return likely


def _track(x: Floats, axes: Floats) -> Floats:
    """Return ``(T, 4)``: each frame's pose about its own middle, along the axes."""
    return about_middle(x).reshape(len(x), -1) @ axes


def _padded(tracks: list[Floats]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(track) for track in tracks], batch_first=True)


def _least(first: Tensor, second: Tensor, frames: Index, joints: int, options: NearOptions) -> Floats:
    """Return ``(P,)``: a lower bound of the root mean square difference of each pair over all shifts."""
    lengths, others = torch.from_numpy(frames).unbind(1)
    best = torch.full((len(first),), torch.inf)
    for shift in _shifts(options):
        begin, end = max(shift, 0), min(first.shape[1], second.shape[1] + shift)
        if end - begin < 1:
            continue
        apart = first[:, begin:end] - second[:, begin - shift : end - shift]
        last = torch.minimum(lengths, others + shift)
        inside = torch.arange(begin, end) < last[:, None]
        count = last - begin
        left = (apart.square().sum(2) * inside).sum(1) / (count.clamp(min=1) * joints)
        fits = (count >= options.min_frames) & ((others + shift - lengths).abs() <= options.max_shift)
        best = torch.where(fits, torch.minimum(best, left), best)
    return best.sqrt().numpy()
