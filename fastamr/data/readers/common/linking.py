"""Who is who from frame to frame, where a file tells no tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

GATE = 1.0
"""A pose belongs to a track where its joints lie within so many body sizes of where the track should be (choice)."""
MAX_GAP = 30
"""Frames after which a track that was not seen is closed (choice)."""
MAX_AHEAD = 10
"""Frames that a lost track is thought to go on at its speed (choice)."""
NOTE = (
    "the file tells no tracks: people are linked from frame to frame by the overlap of their poses (Hungarian "
    "assignment); --no-track refuses such files"
)
"""What a reader says where it links people."""
NO_TRACKS = "several people in an image and no tracks"
"""What is wrong with a file without tracks that must not be linked."""


@dataclass
class _Track:
    """A person so far: the last pose, the mean speed of its joints per frame, and the size of the body."""

    number: int
    frame: int
    coords: np.ndarray
    seen: np.ndarray
    speed: np.ndarray
    size: float

    def ahead(self, now: int) -> np.ndarray:
        """Return where the joints should be now."""
        return self.coords + self.speed * min(now - self.frame, MAX_AHEAD)

    def go_on(self, now: int, coords: np.ndarray, seen: np.ndarray, size: float) -> None:
        """Take in the pose of a later frame; a joint that it does not show moves with the others."""
        both = self.seen & seen
        moved = (coords[both] - self.coords[both]).mean(axis=0) / (now - self.frame)
        self.speed = 0.5 * (self.speed + moved)
        self.coords = np.where(seen[:, None], coords, self.coords + moved * (now - self.frame))
        self.seen, self.frame, self.size = self.seen | seen, now, max(size, 0.95 * self.size)


def link_people(clip: np.ndarray, frame: np.ndarray, coords: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Link the poses of each clip to tracks, frame by frame.

    The Hungarian method finds the poses that lie nearest to where the tracks should be, by their speed; a pose further
    than :data:`GATE` begins a track. In a clip that never shows two people at once all poses are one person. The
    order of the poses does not matter.

    Args:
        clip: ``(n,)`` int64, the clip of each pose.
        frame: ``(n,)`` int64, its frame, in any order.
        coords: ``(n, V, C)`` real numbers.
        seen: ``(n, V)`` bool, which joints were seen; a pose without any gets track 0.

    Returns:
        ``(n,)`` int64, the track of each pose within its clip, from 0 in the order in which they begin, from the
        smallest first coordinate on where they begin together.
    """
    tracks = np.zeros(len(clip), dtype=np.int64)
    rows = np.flatnonzero(seen.any(axis=1) & np.isin(clip, shared_clips(clip, frame)))
    if len(rows) == 0:
        return tracks
    points, joints = coords[rows].astype(np.float64), seen[rows]
    points[~joints] = 0
    middles = points.sum(axis=1) / joints.sum(axis=1)[:, None]
    # Equal middles are told apart by the joints, so that the order in the file never counts.
    keys = (*points.reshape(len(rows), -1).T[::-1], *middles.T[::-1], frame[rows], clip[rows])
    order = np.lexsort(keys)
    rows, points, joints = rows[order], points[order], joints[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(clip[rows]) != 0) | (np.diff(frame[rows]) != 0)])
    sizes = _sizes(points, joints)
    open_tracks: list[_Track] = []
    count, before = 0, None
    for begin, end in zip(starts, np.r_[starts[1:], len(rows)], strict=True):
        if clip[rows[begin]] != before:
            open_tracks, count, before = [], 0, clip[rows[begin]]
        now = int(frame[rows[begin]])
        open_tracks = [track for track in open_tracks if now - track.frame <= MAX_GAP]
        part = slice(begin, end)
        for place, track in _pairs(open_tracks, now, points[part], joints[part], sizes[part]):
            at = begin + place
            if track is None:
                still = np.zeros(points.shape[2])
                track = _Track(count, now, points[at], joints[at], still, float(sizes[at]))
                open_tracks.append(track)
                count += 1
            else:
                track.go_on(now, points[at], joints[at], float(sizes[at]))
            tracks[rows[at]] = track.number
    return tracks


def shared_clips(clip: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return the clips, int64, that have several poses in a frame."""
    pairs, counts = np.unique(np.stack([clip, frame]), axis=1, return_counts=True)
    return np.unique(pairs[0, counts > 1])


def tracks_without_ids(
    clip: np.ndarray,
    frame: np.ndarray,
    coords: np.ndarray,
    seen: np.ndarray,
    *,
    track: bool,
    where: Callable[[int], str],
    way_on: str,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the tracks of poses that a file tells no ids of, and the note about them; see :func:`link_people`.

    Args:
        clip, frame, coords, seen: as in :func:`link_people`.
        track: whether people may be linked.
        where: tells in words where a pose stands, for errors.
        way_on: how to come by tracks, for errors.

    Raises:
        ValueError: several people are in a frame, and ``track`` is false.
    """
    shared = shared_clips(clip, frame)
    if len(shared) and not track:
        row = int(np.flatnonzero(np.isin(clip, shared))[0])
        raise ValueError(
            f"{where(row)}: {NO_TRACKS}; {way_on}, or leave out --no-track to have people linked"
        )
    return link_people(clip, frame, coords, seen), (NOTE,) if len(shared) else ()


def _sizes(points: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Return the diagonal of the box about each pose's seen joints ``(n,)``."""
    low = np.where(joints[..., None], points, np.inf).min(axis=1)
    high = np.where(joints[..., None], points, -np.inf).max(axis=1)
    sizes: np.ndarray = np.linalg.norm(high - low, axis=-1)
    return sizes


def _pairs(
    tracks: list[_Track], now: int, points: np.ndarray, joints: np.ndarray, sizes: np.ndarray
) -> list[tuple[int, _Track | None]]:
    """Return each pose of a frame with its track, or with None where it begins one."""
    found: dict[int, _Track] = {}
    if tracks:
        there = np.stack([track.ahead(now) for track in tracks])
        both = joints[:, None] & np.stack([track.seen for track in tracks])
        size = np.maximum(sizes[:, None], [track.size for track in tracks])
        far = np.linalg.norm(points[:, None] - there, axis=-1)
        total = np.where(both, far, 0).sum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            cost = total / both.sum(axis=2) / size
        # A pair that is too far apart costs as much as none: it must not push others from their places.
        cost = np.minimum(np.nan_to_num(cost, nan=GATE, posinf=GATE), GATE)
        for place, at in zip(*linear_sum_assignment(cost), strict=True):
            if cost[place, at] < GATE:
                found[int(place)] = tracks[at]
    return [(place, found.get(place)) for place in range(len(points))]
