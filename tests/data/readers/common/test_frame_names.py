"""Names of images: the number that varies is the frame, in the order of numbers or times, whatever their order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data.readers.common.frame_names import clips_of_names, frames_of_names
from fastamr.data.readers.common.time_stamps import rhythm_of


def where(place: int) -> str:
    return f"poses.json: entry {place}"


def micros(count: int = 12, step: int = 51_000) -> list[int]:
    """Times in microseconds that pass a full second and a full minute."""
    return [59_700_000 + step * place for place in range(count)]


def clock(micro: int, form: str) -> str:
    seconds, part = divmod(micro, 1_000_000)
    minute, second = divmod(seconds, 60)
    return form.format(
        minute=4 + minute, second=second, micro=part, milli=part // 1000, unix=1_530_705_800 + seconds
    )


COUNTED: list[tuple[str, Sequence[int]]] = [
    ("img_{:06d}.jpg", range(8, 14)),
    ("frame_{}.jpg", range(8, 14)),
    ("vid1_frame{}_rgb.png", range(8, 14)),
    ("clip_{:012d}_keypoints.json", range(8, 14)),
    ("{}_1080p.JPG", range(8, 14)),
    ("f{}_30fps.png", range(8, 14)),
    ("20180704_120417_{:06d}.png", range(8, 14)),
    ("20180704_120417_{:03d}.png", range(8, 14)),
    ("S001C002P003R001A001_{:05d}", range(8, 14)),
    ("http://host:80/v2/{}.jpg?size=640", range(8, 14)),
    ("image-{}.v2.png", range(8, 14)),
]
TIMES = [
    "2018-07-04T12_{minute:02d}_{second:02d}.{micro:06d}.png",
    "2018-07-04 12:{minute:02d}:{second:02d}.{micro:06d}",
    "20180704_12{minute:02d}{second:02d}_{micro:06d}.png",
    "20180704_12{minute:02d}{second:02d}_{milli:03d}.png",
    "2018070412{minute:02d}{second:02d}{milli:03d}.png",
    "rgb/{unix}.{micro:06d}.png",
    "{unix}{milli:03d}.png",
    "{unix}{micro:06d}_depth.png",
    "12-{minute:02d}-{second:02d}-{milli}.jpg",
    "12h{minute:02d}m{second:02d}s.{milli:03d}.jpg",
]


class TestNumbers:
    @pytest.mark.parametrize(("form", "numbers"), COUNTED)
    def test_the_number_that_varies_is_the_frame(self, form: str, numbers: Sequence[int]) -> None:
        found = frames_of_names([form.format(number) for number in numbers], where)
        assert found.frames.tolist() == list(numbers)
        assert (found.notes, math.isnan(found.fps)) == ((), True)

    def test_equal_names_are_one_frame(self) -> None:
        assert frames_of_names(["7.jpg", "9.jpg", "7.jpg"], where).frames.tolist() == [7, 9, 7]

    def test_numbers_that_grow_together(self) -> None:
        names = [f"{place:04d}_of_{place * 33 + place % 2}.png" for place in range(8)]
        assert frames_of_names(names, where).frames.tolist() == list(range(8))

    def test_milliseconds_are_frames(self) -> None:
        names = [f"{int(place * 1000 / 30):05d}.png" for place in range(12) if place not in (4, 5)]
        found = frames_of_names(names, where)
        assert found.frames.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]
        assert "grow by about 33 a frame" in found.notes[0]

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["photo.jpg"], r"entry 0: image 'photo.jpg' has no number that tells the frame; name the images by"),
            (["1.jpg", "anna.jpg"], "entry 1: image 'anna.jpg' has no number"),
            (["a3f0.jpg", "b2c1.jpg", "ffe012.jpg"], "image 'a3f0.jpg' is not numbered as the others are"),
            (["0001.jpg", "0002.jpg", "0001.png"], "entry 2: images '0001.jpg' and '0001.png' are one frame"),
            (["1.jpg", "01.jpg"], "entry 1: images '1.jpg' and '01.jpg' are one frame"),
            (["x1_a.jpg", "x1_A.jpg"], "images 'x1_a.jpg' and 'x1_A.jpg' are one frame"),
            ([f"{clip:05d}_{frame:04d}.png" for clip in range(9) for frame in range(4)], "2 numbers vary"),
            ([f"cam{cam}_{frame:04d}.png" for cam in (1, 2) for frame in range(4)], r"2 clips \('cam1', 'cam2'\)"),
            ([f"IMG_2018070{day}_120411.jpg" for day in range(1, 6)], "8.64e\\+04 s apart, which is no motion"),
        ],
    )  # fmt: skip
    def test_names_that_are_no_sequence(self, names: list[str], message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            frames_of_names(names, where)
        assert "\n" not in str(error.value)


class TestTimes:
    @pytest.mark.parametrize("form", TIMES)
    def test_times_are_in_the_order_of_time(self, form: str) -> None:
        found = frames_of_names([clock(micro, form) for micro in micros()], where)
        assert found.frames.tolist() == list(range(12))
        assert found.fps == pytest.approx(19.6, abs=0.1)
        assert found.notes == (
            "frames are told by the times in the images' names, about 19.6 frames a second",
        ) or (found.notes[0].startswith("frames are told by the times in the images' names, about 19.6"))

    def test_a_gap_stays(self) -> None:
        names = [clock(micro, TIMES[0]) for place, micro in enumerate(micros()) if place not in (3, 4)]
        assert frames_of_names(names, where).frames.tolist() == [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]

    def test_a_counter_beside_the_time(self) -> None:
        names = [f"{place:03d}_" + clock(micro, TIMES[0]) for place, micro in enumerate(micros())]
        assert frames_of_names(names, where).frames.tolist() == list(range(12))

    def test_uneven_times_are_said(self) -> None:
        rng = np.random.default_rng(0)
        times = [int(micro + rng.uniform(-24_000, 24_000)) for micro in micros(40)]
        found = frames_of_names([clock(micro, TIMES[0]) for micro in times], where)
        assert (np.diff(found.frames) >= 1).all()
        assert "uneven times" in found.notes[0]

    def test_seconds_without_rhythm(self) -> None:
        assert rhythm_of(np.array([3.0, 3.0])) is None
        assert rhythm_of(np.array([0.0, 100.0, 200.0])) is None


class TestClips:
    def test_folders_in_both_spellings(self) -> None:
        found = clips_of_names(["./a\\b\\1.jpg", "a/b/2.jpg", "c/1.jpg", "5.jpg", "file:///c/2.jpg"], where)
        assert found.names == ("a/b", "c", "")
        assert found.clips.tolist() == [0, 0, 1, 2, 1]
        assert found.frames.tolist() == [1, 2, 1, 0, 2]

    @pytest.mark.parametrize(
        ("form", "names"),
        [
            ("cam{clip}_{frame:04d}.png", ("v/cam1", "v/cam2")),
            ("{frame:04d}_cam{clip}.png", ("v/cam1", "v/cam2")),
            ("walk{clip}_frame{frame}.png", ("v/walk1", "v/walk2")),
            ("cam{clip}_1530705857.{frame}66666.png", ("v/cam1", "v/cam2")),
        ],
    )
    def test_names_of_several_clips(self, form: str, names: tuple[str, ...]) -> None:
        images = ["v/" + form.format(clip=clip, frame=frame) for clip in (1, 2) for frame in range(6)]
        found = clips_of_names(images, where)
        assert found.names == names
        assert found.clips.tolist() == [0] * 6 + [1] * 6
        assert found.frames.tolist() == [*range(6)] * 2
        assert len(found.notes) == 1

    def test_clips_told_by_text(self) -> None:
        found = clips_of_names(
            [f"{side}_{frame}.png" for side in ("left", "right") for frame in range(4)], where
        )
        assert found.names == ("left", "right")
        assert "differ in their text" in found.notes[0]


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from([lambda n, form=form: form.format(n) for form, _ in COUNTED]
                         + [lambda n, form=form: clock(59_000_000 + 40_000 * n, form) for form in TIMES]),
    numbers=st.lists(st.integers(0, 60), min_size=2, max_size=30),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_order_of_the_names_does_not_matter(
    form: Callable[[int], str], numbers: list[int], seed: int
) -> None:
    names = [form(number) for number in numbers]
    order = list(range(len(names)))
    random.Random(seed).shuffle(order)
    found = frames_of_names(names, where)
    shuffled = frames_of_names([names[place] for place in order], where)
    assert shuffled.frames.tolist() == [int(found.frames[place]) for place in order]
    assert shuffled.notes == found.notes
