"""Who is who from frame to frame: by the ids of tracks, and by nearness where a file tells none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
_NO_ID = {"", "-1", "None", "null", "nan"}
_NUMBER = re.compile(r"-?\d{1,300}(?:\.\d+)?")
NO_TRACKS = "several people in a frame and no tracks"
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
    shown = seen.any(axis=1)
    rows = np.flatnonzero(shown & np.isin(clip, shared_clips(clip[shown], frame[shown])))
    if len(rows) == 0:
        return tracks
    points, joints = np.where(seen[rows][..., None], coords[rows], 0).astype(np.float64), seen[rows]
    middles = _middles(points, joints)
    keys = (*middles.T[::-1], frame[rows], clip[rows])
    order = np.lexsort(keys)
    if np.all([np.diff(key[order]) == 0 for key in keys], axis=0).any():
        # Equal middles are told apart by the joints, so that the order in the file never counts.
        order = np.lexsort((*points.reshape(len(rows), -1).T[::-1], *keys))
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


def groups(key: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Return some rows by the value of their key, smallest first, those of one value in their order.

    Args:
        key: ``(n,)`` whole numbers.
        rows: int64 indices into it.
    """
    order = rows[np.argsort(key[rows], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if len(order) else []


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
    # Crowds, and people whom nobody marked, are poses without a joint.
    shown = seen.any(axis=1)
    shared = shared_clips(clip[shown], frame[shown])
    if len(shared) and not track:
        row = int(np.flatnonzero(np.isin(clip, shared))[0])
        raise ValueError(
            f"{where(row)}: {NO_TRACKS}; {way_on}, or leave out --no-track to have people linked"
        )
    return link_people(clip, frame, coords, seen), (NOTE,) if len(shared) else ()


def _middles(points: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Return the mean of each pose's seen joints ``(n, C)``, 0 where there are none."""
    total = np.where(joints[..., None], points, 0).sum(axis=1, dtype=np.float64)
    middles: np.ndarray = total / np.maximum(joints.sum(axis=1), 1)[:, None]
    return middles


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


def id_text(value: Any) -> str | None:
    """Return the id of a track as text, a whole number without its decimals; None where a file says that there is none.

    Tools write no id as null, "", -1 or NaN.
    """
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return None if text in _NO_ID else text


@dataclass(frozen=True)
class Bodies:
    """The bodies of poses.

    Args:
        body: ``(n,)`` int64, the body of each pose, numbered by clip, then as they begin, then by their ids.
        names: their ids, "" where people were linked; empty where no file tells any.
        notes: how people were told, a line each.
    """

    body: np.ndarray
    names: list[str]
    notes: tuple[str, ...]


def bodies_of(
    clip: np.ndarray,
    frame: np.ndarray,
    coords: np.ndarray,
    seen: np.ndarray,
    ids: Sequence[tuple[str, ...]],
    *,
    track: bool,
    where: Callable[[int], str],
    way_on: str,
    share: float = 0.5,
) -> Bodies:
    """Return the bodies of poses by their track ids, and by :func:`link_people` where they have none.

    An id that several people of a frame share, in half of its frames or as the only one of the clip, is none: tools
    write it where no tracker ran. Two poses of another id in a frame are an error of :func:`~.poses.pack_poses`. Ids
    of which none comes back in a clip of three frames or more are none, too. A pose of several ids, a detection that
    was merged from several, is the one of them that is nowhere else in its frame and has most poses.

    Args:
        clip, frame, coords, seen: as in :func:`link_people`.
        ids: the ids of each pose, () = none.
        track: whether people without ids may be linked.
        where: tells in words where a pose stands, for errors.
        way_on: how to come by tracks, for errors.
        share: in which part of its frames an id must be shared to be none; 0 = in any.

    Raises:
        ValueError: several people without ids are in a frame, and ``track`` is false.
    """
    told, notes = _single_ids(clip, frame, ids)
    told, unique = _without_unique(clip, frame, told)
    told, shared = _without_shared(clip, frame, told, share)
    bare = np.flatnonzero(told == "")
    apart = bare[np.isin(clip[bare], clip[told != ""])]
    linked = np.zeros(len(clip), dtype=np.int64)
    linking: tuple[str, ...] = ()
    if len(bare):
        linked[bare], linking = tracks_without_ids(
            clip[bare],
            frame[bare],
            coords[bare],
            seen[bare],
            track=track,
            where=lambda row: where(int(bare[row])),
            way_on=way_on,
        )
    keys = [(int(clip[row]), str(told[row]), int(linked[row])) for row in range(len(clip))]
    first: dict[tuple[int, str, int], int] = {}
    for key, now in zip(keys, frame.tolist(), strict=True):
        first[key] = min(first.get(key, now), now)
    ordered = sorted(first, key=lambda key: (key[0], first[key], _natural(key[1]), key[2]))
    numbers = {key: number for number, key in enumerate(ordered)}
    names = [name for _, name, _ in ordered]
    lacking = (f"{len(apart)} of {len(clip)} poses have no track id and are linked apart",) * bool(len(apart))
    notes = tuple(dict.fromkeys((*notes, *unique, *shared, *lacking, *linking)))
    return Bodies(np.array([numbers[key] for key in keys]), names if any(names) else [], notes)


def _without_unique(
    clip: np.ndarray, frame: np.ndarray, told: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the ids without those of clips in which none comes back, "" in their place, and the note about them."""
    told, found = told.copy(), 0
    for rows in groups(clip, np.flatnonzero(told != "")):
        if len(np.unique(frame[rows])) > 2 and len(set(told[rows].tolist())) == len(rows):
            told[rows] = ""
            found += 1
    note = f"no track id comes back in a second frame, in {found} clips: they count the poses and are taken as none"
    return told, (note,) * bool(found)


def _without_shared(
    clip: np.ndarray, frame: np.ndarray, told: np.ndarray, share: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the ids without those that stand for nobody in particular, "" in their place, and the note about them.

    Such an id is the only one of its clip, or several people have it in the ``share`` of its frames or more.
    """
    found: dict[str, None] = {}
    for rows in groups(clip, np.flatnonzero(np.isin(clip, shared_clips(clip, frame)) & (told != ""))):
        own, code = np.unique(told[rows].astype(str), return_inverse=True)
        frames, counts = np.unique(np.stack([code, frame[rows]]), axis=1, return_counts=True)
        doubled, total = np.bincount(frames[0], counts > 1), np.bincount(frames[0])
        none = (doubled > 0) & ((doubled >= share * total) | (len(own) == 1))
        told[rows[none[code]]] = ""
        found |= dict.fromkeys(sorted(own[none].tolist(), key=_natural))
    shown = ", ".join(list(found)[:4])
    return told, (f"several people of an image share the track id {shown}, which is taken as none",) * bool(
        found
    )


def _single_ids(
    clip: np.ndarray, frame: np.ndarray, ids: Sequence[tuple[str, ...]]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return one id for each pose, "" = none, and the note about those that had several."""
    unique = [tuple(sorted(set(own), key=_natural)) for own in ids]
    told = np.array([own[0] if len(own) == 1 else "" for own in unique], dtype=object)
    several = [row for row, own in enumerate(unique) if len(own) > 1]
    if not several:
        return told, ()
    counts = Counter(zip(clip.tolist(), told.tolist(), strict=True))
    taken = set(zip(clip.tolist(), frame.tolist(), told.tolist(), strict=True))
    several.sort(key=lambda row: (int(clip[row]), int(frame[row]), len(unique[row]), unique[row]))
    for row in several:
        place = int(clip[row]), int(frame[row])
        free = [name for name in unique[row] if (*place, name) not in taken]
        if free:
            told[row] = max(free, key=lambda name: counts[place[0], name])
            taken.add((*place, told[row]))
    note = (
        f"{len(several)} poses name several track ids, of merged detections: the one with most poses is taken"
    )
    return told, (note,)


def _natural(name: str) -> tuple[int, float, str]:
    """Return a key that sorts numbers by value and before words."""
    return (0, float(name), name) if _NUMBER.fullmatch(name) else (1, 0.0, name)
