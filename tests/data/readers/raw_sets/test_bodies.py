"""The choice of bodies against a second, plain implementation of the field's recipe."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data.readers.raw_sets.bodies import RECIPE, BodyChoice, Track, body_arrays, choose_bodies

from ..writers import lying, standing


def track(first: int, coords: np.ndarray) -> Track:
    return Track(np.arange(first, first + len(coords)), coords)


def recipe(tracks: list[Track]) -> list[list[int]]:
    """The recipe as CTR-GCN's get_raw_denoised_data.py goes about it, body by body, with our rule where all go."""
    data = {i: (t, float(np.sum(np.var(t.coords.reshape(-1, 3), axis=0)))) for i, t in enumerate(tracks)}
    if len(data) == 1:
        return [[0]]
    short = [i for i, (t, _) in data.items() if len(t.frames) <= 11]
    if len(short) == len(data):
        longest = max(len(t.frames) for t in tracks)
        short.remove(next(i for i, t in enumerate(tracks) if len(t.frames) == longest))
    for i in short:
        del data[i]
    for i in list(data):
        if len(data) == 1:
            break
        t, motion = data[i]
        good = []
        for joints in t.coords:
            x, y = joints[:, 0], joints[:, 1]
            good.append(bool(x.max() - x.min() <= np.float32(0.8) * (y.max() - y.min())))
        noise = good.count(False)
        if noise == 0:
            continue
        if noise / len(good) >= 0.69754:
            del data[i]
        else:
            rest = t.coords[np.array(good)].reshape(-1, 3)
            data[i] = (t, min(motion, float(np.sum(np.var(rest, axis=0)))))
    order = sorted(data, key=lambda i: data[i][1], reverse=True)
    actors: list[list[int]] = [[order[0]], []]
    start1, end1 = data[order[0]][0].span
    start2, end2 = 0, 0
    for i in order[1:]:
        start, end = data[i][0].span
        if min(end1, end) - max(start1, start) <= 0:
            actors[0].append(i)
            start1, end1 = min(start, start1), max(end, end1)
        elif min(end2, end) - max(start2, start) <= 0 or not actors[1]:
            # Before the second actor has a track, its time is nobody's.
            start2, end2 = (start, end) if not actors[1] else (min(start, start2), max(end, end2))
            actors[1].append(i)
    return [actor for actor in actors if actor]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 30), st.floats(0, 1), st.integers(0, 9)),
        min_size=1,
        max_size=6,
    )
)
def test_equals_the_recipe(spans: list[tuple[int, int, float, int]]) -> None:
    tracks = []
    for place, (first, length, wide, noise) in enumerate(spans):
        coords = standing(length, place, noise=0.02 * noise)
        turned = np.random.default_rng(place).random(length) < wide
        coords[turned] = coords[turned][..., [1, 0, 2]]
        tracks.append(track(first, coords))
    chosen = [
        [next(i for i, t in enumerate(tracks) if t is part) for part in person]
        for person in choose_bodies(tracks, RECIPE)
    ]
    assert chosen == recipe(tracks)


class TestChoice:
    person, other, table = standing(30, 1, noise=0.2), standing(30, 2, noise=0.1), lying(30, 3, noise=0.5)

    def test_a_single_body_stays_whatever_it_is(self) -> None:
        alone = [track(0, lying(3))]
        assert choose_bodies(alone, RECIPE) == [alone]

    def test_furniture_and_short_tracks_go(self) -> None:
        tracks = [
            track(0, self.table),
            track(0, self.other),
            track(0, self.person),
            track(3, standing(11, 4, noise=1.0)),
        ]
        assert choose_bodies(tracks, RECIPE) == [[tracks[2]], [tracks[1]]]
        everything = choose_bodies(tracks, BodyChoice(denoise=False, join=False, bodies=9))
        assert sorted(len(person[0].frames) for person in everything) == [11, 30, 30, 30]

    def test_the_two_most_active_of_three(self) -> None:
        tracks = [track(0, standing(20, place, noise=noise)) for place, noise in enumerate((0.05, 0.4, 0.2))]
        assert choose_bodies(tracks, RECIPE) == [[tracks[1]], [tracks[2]]]
        assert choose_bodies(tracks, BodyChoice(bodies=1)) == [[tracks[1]]]
        assert choose_bodies(tracks, BodyChoice(bodies=3)) == [[tracks[1]], [tracks[2]], [tracks[0]]]

    def test_a_body_that_changes_its_number_is_one_person(self) -> None:
        tracks = [track(0, self.person[:15]), track(15, self.person[15:])]
        (joined,) = choose_bodies(tracks, RECIPE)
        coords, valid = body_arrays([joined], 30, 25, 3)
        np.testing.assert_array_equal(coords[:, 0], self.person)
        assert valid is None
        assert len(choose_bodies(tracks, BodyChoice(join=False))) == 2

    def test_motion_limits_hold_for_the_second_person_only(self) -> None:
        tracks = [track(0, self.person), track(0, self.other)]
        motion = tracks[1].motion()
        assert len(choose_bodies(tracks, BodyChoice(motion=(motion * 0.9, math.inf)))) == 2
        assert choose_bodies(tracks, BodyChoice(motion=(motion * 1.1, math.inf))) == [[tracks[0]]]
        assert choose_bodies(tracks, BodyChoice(motion=(0, motion * 0.9))) == [[tracks[0]]]

    def test_absent_frames_are_zero_and_not_seen(self) -> None:
        part = Track(np.array([1, 3]), self.person[:2], np.ones((2, 25), dtype=bool))
        coords, valid = body_arrays([[part]], 5, 25, 3)
        assert coords.any(axis=(1, 2, 3)).tolist() == [False, True, False, True, False]
        assert valid is not None
        assert valid.any(axis=(1, 2)).tolist() == [False, True, False, True, False]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"bodies": 0}, "bodies is 0"),
            ({"min_frames": 0}, "min_frames is 0"),
            ({"spread": 0.0}, "spread is 0.0"),
            ({"spread_share": 1.5}, "spread_share 1.5"),
            ({"motion": (2.0, 1.0)}, "motion is"),
        ],
    )
    def test_bad_values(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            BodyChoice(**values)  # type: ignore[arg-type]
