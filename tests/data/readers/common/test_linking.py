"""People without tracks: nearness, crossing, gaps, people who come and go; the order in the file never counts."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data.readers.common.linking import MAX_GAP, link_people, tracks_without_ids

JOINTS = 17


def walkers(paths: np.ndarray, *, seed: int = 0, size: float = 100.0, noise: float = 1.0) -> np.ndarray:
    """Bodies of a fixed shape each that follow paths ``(M, T, C)``, NaN = absent: ``(M, T, V, C)``."""
    rng = np.random.default_rng(seed)
    shapes = rng.uniform(-0.5, 0.5, (len(paths), 1, JOINTS, paths.shape[2])) * size
    return paths[:, :, None] + shapes + rng.normal(0, noise, (*paths.shape[:2], JOINTS, paths.shape[2]))


def listed(bodies: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The poses of bodies that are there, in a random order: frame, coordinates, and whose they are."""
    body, frame = np.nonzero(np.isfinite(bodies).all(axis=(2, 3)))
    order = np.random.default_rng(seed).permutation(len(body))
    return frame[order], bodies[body, frame][order], body[order]


def link(frame: np.ndarray, coords: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray:
    seen = np.ones(coords.shape[:2], dtype=bool) if seen is None else seen
    return link_people(np.zeros(len(frame), dtype=np.int64), frame, coords, seen)


def is_one_to_one(tracks: np.ndarray, owner: np.ndarray) -> bool:
    pairs = np.unique(np.stack([tracks, owner]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def line(start: tuple[float, ...], step: tuple[float, ...], frames: int) -> np.ndarray:
    return np.array(start) + np.arange(frames)[:, None] * np.array(step)


class TestLinkPeople:
    @pytest.mark.parametrize("scale", [1.0, 0.01])
    @pytest.mark.parametrize("third", [(), (300.0,)])
    def test_people_side_by_side(self, third: tuple[float, ...], scale: float) -> None:
        still = (0.0,) * len(third)
        paths = np.stack([line((x, 0, *third), (2, 1, *still), 40) for x in (500.0, 0.0, 90.0)])
        frame, coords, owner = listed(walkers(paths) * scale)
        tracks = link(frame, coords)
        assert is_one_to_one(tracks, owner)
        # They begin together: the first is the one with the smallest x.
        assert {int(owner[tracks == number][0]) for number in (0,)} == {1}

    @pytest.mark.parametrize("lost", [range(0), range(18, 24)])
    def test_people_who_cross(self, lost: range) -> None:
        """They pass each other at one height; one of them may be hidden meanwhile."""
        paths = np.stack([line((0, 0), (8, 0), 40), line((320, 4), (-8, 0), 40)])
        bodies = walkers(paths)
        bodies[1, list(lost)] = np.nan
        frame, coords, owner = listed(bodies)
        assert is_one_to_one(link(frame, coords), owner)

    def test_people_come_and_go(self) -> None:
        paths = np.stack([line((0, 0), (3, 0), 60), line((400, 0), (1, 0), 60), line((800, 0), (-2, 0), 60)])
        bodies = walkers(paths)
        bodies[1, :20] = np.nan
        bodies[2, 30:] = np.nan
        bodies[0, 40:44] = np.nan
        frame, coords, owner = listed(bodies)
        assert is_one_to_one(link(frame, coords), owner)

    def test_who_comes_back_late_is_someone_else(self) -> None:
        paths = np.stack([line((0, 0), (0, 0), 90), line((400, 0), (0, 0), 90)])
        bodies = walkers(paths)
        bodies[1, 10 : 11 + MAX_GAP] = np.nan
        frame, coords, _ = listed(bodies)
        assert len(np.unique(link(frame, coords))) == 3

    def test_joints_that_are_hidden(self) -> None:
        rng = np.random.default_rng(3)
        frame, coords, owner = listed(walkers(np.stack([line((x, 0), (2, 0), 40) for x in (0.0, 120.0)])))
        seen = rng.random(coords.shape[:2]) > 0.6
        seen[:, 0] = True
        tracks = link(frame, np.where(seen[..., None], coords, -1e6), seen)
        assert is_one_to_one(tracks, owner)

    def test_one_person_is_one_track_however_far(self) -> None:
        frame, coords, _ = listed(walkers(np.stack([line((0, 0), (5000, 0), 20) * 2])))
        assert link(frame * 50, coords).tolist() == [0] * 20

    def test_a_pose_that_shows_nothing(self) -> None:
        frame, coords, _ = listed(walkers(np.stack([line((x, 0), (2, 0), 5) for x in (0.0, 300.0)])))
        seen = np.ones(coords.shape[:2], dtype=bool)
        seen[3] = False
        assert sorted(set(link(frame, coords, seen).tolist())) == [0, 1]

    def test_many_frames_of_ten_people(self) -> None:
        paths = np.stack([line((300.0 * x, 0), (0.05, 0), 10_000) for x in range(10)])
        frame, coords, owner = listed(walkers(paths))
        begin = time.process_time()
        tracks = link(frame, coords)
        assert time.process_time() - begin < 60
        assert is_one_to_one(tracks, owner)

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), people=st.integers(1, 4), frames=st.integers(1, 12))
    def test_the_order_in_the_file_does_not_matter(self, seed: int, people: int, frames: int) -> None:
        rng = np.random.default_rng(seed)
        bodies = rng.integers(0, 6, (people, frames, JOINTS, 2)) * 40.0
        bodies[rng.random((people, frames)) < 0.2] = np.nan
        frame, coords, _ = listed(bodies, seed)
        clip = rng.integers(0, 2, len(frame))
        seen = rng.random(coords.shape[:2]) > 0.3
        order = rng.permutation(len(frame))
        tracks = link_people(clip, frame, coords, seen)
        again = link_people(clip[order], frame[order], coords[order], seen[order])
        # Equal poses of one frame may stand for each other.
        before = sorted(zip(clip, frame, coords.tolist(), seen.tolist(), tracks, strict=True))
        coords, seen = coords[order], seen[order]
        after = sorted(zip(clip[order], frame[order], coords.tolist(), seen.tolist(), again, strict=True))
        assert before == after


def test_no_track_refuses() -> None:
    clip, frame = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
    coords, seen = np.zeros((2, 3, 2)), np.ones((2, 3), dtype=bool)
    with pytest.raises(
        ValueError, match=r"f\[0\]: several people in a frame and no tracks; run a tracker, or leave"
    ):
        tracks_without_ids(
            clip, frame, coords, seen, track=False, where=lambda i: f"f[{i}]", way_on="run a tracker"
        )
    _, notes = tracks_without_ids(clip, frame, coords, seen, track=True, where=str, way_on="")
    assert "linked from frame to frame" in notes[0]
    tracks, notes = tracks_without_ids(clip, np.arange(2), coords, seen, track=False, where=str, way_on="")
    assert (tracks.tolist(), notes) == ([0, 0], ())
