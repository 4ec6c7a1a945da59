"""Which of the tracked bodies of a Kinect clip are the people in it.

The Kinect gives a body a new number whenever it loses and finds it, and takes furniture for bodies. The recipe is
that of ``get_raw_denoised_data.py`` in VA-CNN, SGN, CTR-GCN and MAMP, which all share it: a clip with one track
keeps it; otherwise short tracks go, then those that are wider than high in most frames, and the rest, the most
active first, become two people, where tracks that do not overlap in time join into one person. Two differences
(choice): a track keeps the frames that it was seen in, where the recipe closes its gaps and moves the rest forward;
and the second person's time begins with its first track, where the recipe lets it begin with the clip.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Track:
    """A body under one number.

    Args:
        frames: ``(n,)`` int64, rising, the frames that it was seen in.
        coords: ``(n, V, C)`` float32.
        valid: ``(n, V)`` bool, or None.
    """

    frames: np.ndarray
    coords: np.ndarray
    valid: np.ndarray | None = None

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last frame."""
        return int(self.frames[0]), int(self.frames[-1])

    def motion(self) -> float:
        """Return the variance of all joint positions, summed over x, y and z: how the recipe measures activity."""
        return _motion(self.coords)


@dataclass(frozen=True)
class BodyChoice:
    """How to choose bodies; the defaults are the recipe's.

    Args:
        bodies: how many people to keep at most.
        denoise: whether to leave out tracks that look like noise, where there are several.
        min_frames: tracks with fewer frames are noise. Where all are, the longest one stays (choice).
        spread: a frame is noisy where the body's width exceeds ``spread`` times its height.
        spread_share: a track with at least this share of noisy frames is noise, unless it is the last one.
        motion: least and largest motion (m²) of people beside the most active one; the recipe names 0.089925 and
            2, but does not use them.
        join: whether tracks that do not overlap in time become one person.

    Raises:
        ValueError: a value is out of range.
    """

    bodies: int = 2
    denoise: bool = True
    min_frames: int = 12
    spread: float = 0.8
    spread_share: float = 0.69754
    motion: tuple[float, float] = (0.0, math.inf)
    join: bool = True

    def __post_init__(self) -> None:
        if self.bodies < 1:
            raise ValueError(f"bodies is {self.bodies}, expected at least 1")
        if self.min_frames < 1:
            raise ValueError(f"min_frames is {self.min_frames}, expected at least 1")
        if not self.spread > 0 or not 0 < self.spread_share <= 1:
            raise ValueError(
                f"spread is {self.spread} and spread_share {self.spread_share}, expected a positive number and a "
                f"share above 0, up to 1"
            )
        if not 0 <= self.motion[0] <= self.motion[1]:
            raise ValueError(f"motion is {self.motion}, expected a least and a largest value, from 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings for JSON, which has no infinity: None is no limit."""
        low, high = self.motion
        return {**dataclasses.asdict(self), "motion": [low, None if math.isinf(high) else high]}


RECIPE = BodyChoice()
"""The field's recipe."""


def choose_bodies(tracks: list[Track], choice: BodyChoice) -> list[list[Track]]:
    """Choose the people of a clip.

    Args:
        tracks: in the order in which the bodies appear.
        choice: how to choose.

    Returns:
        At most ``choice.bodies`` people, the most active first, each a list of tracks, the most active first.
    """
    motions = {place: track.motion() for place, track in enumerate(tracks)}
    if choice.denoise and len(tracks) > 1:
        motions = _without_noise(tracks, motions, choice)
    order = sorted(motions, key=lambda place: -motions[place])
    if choice.denoise:
        low, high = choice.motion
        order = order[:1] + [place for place in order[1:] if low <= motions[place] <= high]
    return _assign([tracks[place] for place in order], choice)


def body_arrays(
    people: list[list[Track]], frames: int, joints: int, channels: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Lay people out in time.

    Returns:
        ``(T, M, V, C)`` float32, zeros where a person was not seen, and ``(T, M, V)`` bool or None.
    """
    coords = np.zeros((frames, len(people), joints, channels), dtype=np.float32)
    tracked = any(track.valid is not None for person in people for track in person)
    valid = np.zeros(coords.shape[:3], dtype=bool) if tracked else None
    for place, person in enumerate(people):
        for track in person:
            coords[track.frames, place] = track.coords
            if valid is not None and track.valid is not None:
                valid[track.frames, place] = track.valid
    return coords, valid


def _without_noise(tracks: list[Track], motions: dict[int, float], choice: BodyChoice) -> dict[int, float]:
    """Return the motion of the tracks that are left; frames that look like noise do not count for it."""
    kept = {
        place: motion for place, motion in motions.items() if len(tracks[place].frames) >= choice.min_frames
    }
    if not kept:
        longest = max(motions, key=lambda place: len(tracks[place].frames))
        kept = {longest: motions[longest]}
    for place in list(kept):
        if len(kept) == 1:
            break
        coords = tracks[place].coords
        extent = coords.max(axis=1) - coords.min(axis=1)
        noisy = extent[:, 0] > np.float32(choice.spread) * extent[:, 1]
        if noisy.mean() >= choice.spread_share:
            del kept[place]
        elif noisy.any():
            kept[place] = min(kept[place], _motion(coords[~noisy]))
    return kept


def _assign(tracks: list[Track], choice: BodyChoice) -> list[list[Track]]:
    """Give each track to the first person that was not seen in its time; tracks without a person go."""
    people: list[list[Track]] = []
    spans: list[tuple[int, int]] = []
    for track in tracks:
        first, last = track.span
        for place, (start, end) in enumerate(spans):
            # As in the recipe, a single shared frame is no overlap.
            if choice.join and min(end, last) - max(start, first) <= 0:
                people[place].append(track)
                spans[place] = (min(start, first), max(end, last))
                break
        else:
            if len(people) < choice.bodies:
                people.append([track])
                spans.append(track.span)
    return people


def _motion(coords: np.ndarray) -> float:
    return float(coords.reshape(-1, coords.shape[-1]).var(axis=0, dtype=np.float64).sum())
