"""Who is who from frame to frame, where a file tells no tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

GATE = 1.0
"""A pose belongs to a track where its joints lie within so many body sizes of the track's last pose (choice)."""
MAX_GAP = 30
"""Frames after which a track that was not seen is closed (choice)."""
NOTE = "the file tells no tracks: people are linked from frame to frame by the overlap of their poses"
"""What a reader says where it links people."""


@dataclass
class _Track:
    number: int
    frame: int
    coords: np.ndarray
    seen: np.ndarray


def link_people(clip: np.ndarray, frame: np.ndarray, coords: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Link the poses of each clip to tracks: frame by frame, by the Hungarian method on the distance of poses.

    Args:
        clip: ``(n,)`` int64, the clip of each pose.
        frame: ``(n,)`` int64, its frame, in any order.
        coords: ``(n, V, C)`` real numbers.
        seen: ``(n, V)`` bool, which joints were seen.

    Returns:
        ``(n,)`` int64, the track of each pose within its clip, from 0 in the order in which they begin.
    """
    tracks = np.zeros(len(clip), dtype=np.int64)
    order = np.lexsort((frame, clip))
    starts = np.flatnonzero(np.r_[True, (np.diff(clip[order]) != 0) | (np.diff(frame[order]) != 0)])
    open_tracks: list[_Track] = []
    count, before = 0, None
    for rows in np.split(order, starts[1:]):
        if clip[rows[0]] != before:
            open_tracks, count, before = [], 0, clip[rows[0]]
        now = int(frame[rows[0]])
        open_tracks = [track for track in open_tracks if now - track.frame <= MAX_GAP]
        costs = np.array(
            [[_distance(track, coords[row], seen[row]) for track in open_tracks] for row in rows]
        )
        found = dict(zip(*linear_sum_assignment(costs), strict=True)) if open_tracks else {}
        for place, row in enumerate(rows):
            at = found.get(place)
            if at is None or costs[place, at] > GATE:
                track = _Track(count, now, coords[row], seen[row])
                count += 1
                open_tracks.append(track)
            else:
                track = open_tracks[at]
                track.frame, track.coords, track.seen = now, coords[row], seen[row]
            tracks[row] = track.number
    return tracks


def _distance(track: _Track, coords: np.ndarray, seen: np.ndarray) -> float:
    """Return the mean distance of the joints that both poses show, in body sizes; far where they share none."""
    both = track.seen & seen
    if not both.any():
        return 2 * GATE
    size = np.linalg.norm(np.ptp(track.coords[track.seen], axis=0)) or 1.0
    return min(float(np.linalg.norm(track.coords[both] - coords[both], axis=-1).mean() / size), 2 * GATE)
