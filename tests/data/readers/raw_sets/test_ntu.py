from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data.readers.common import ntu_protocols
from fastamr.data.readers.common.ntu_protocols import ClipName, clip_names, splits
from fastamr.data.readers.common.sources import DamagedFile
from fastamr.data.readers.raw_sets import ntu
from fastamr.data.readers.raw_sets.ntu import NtuReader, parse

from ..writers import frames_of, skeleton_text, standing

# Two numbers that are the same as float64.
FIRST, SECOND = 72057594037931101, 72057594037931102


class TestParse:
    def test_one_body(self) -> None:
        coords = standing(5)
        frames, tracks = parse(skeleton_text(frames_of((FIRST, 0, coords))))
        assert (frames, len(tracks)) == (5, 1)
        assert tracks[0].frames.tolist() == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(tracks[0].coords, coords)
        assert tracks[0].coords.dtype == np.float32
        assert tracks[0].valid is None

    def test_bodies_come_go_and_come_back(self) -> None:
        first, second, third = standing(6, 1), standing(2, 2), standing(1, 3)
        frames = frames_of((FIRST, 0, first), (SECOND, 2, second), (7, 5, third))
        del frames[3][FIRST]
        count, tracks = parse(skeleton_text(frames))
        assert count == 6
        assert [track.frames.tolist() for track in tracks] == [[0, 1, 2, 4, 5], [2, 3], [5]]
        np.testing.assert_array_equal(tracks[0].coords, first[[0, 1, 2, 4, 5]])
        np.testing.assert_array_equal(tracks[1].coords, second)
        np.testing.assert_array_equal(tracks[2].coords, third)

    def test_frames_without_bodies(self) -> None:
        count, tracks = parse(skeleton_text(frames_of((1, 2, standing(2)), frames=6)))
        assert (count, tracks[0].frames.tolist()) == (6, [2, 3])
        assert parse(skeleton_text([{}, {}, {}])) == (3, [])
        assert parse(b"0\n") == (0, [])

    def test_a_number_twice_in_a_frame_is_two_bodies(self) -> None:
        one, two = standing(3, 1), standing(3, 2)
        text = skeleton_text(frames_of((11111, 0, one), (22222, 0, two))).replace(b"22222", b"11111")
        _, tracks = parse(text)
        assert len(tracks) == 2
        np.testing.assert_array_equal(tracks[1].coords, two)

    @pytest.mark.parametrize("end", ["\n", "\r\n", " \n", "\n\n"])
    def test_line_ends_of_any_system(self, end: str) -> None:
        coords = standing(2)
        _, tracks = parse(skeleton_text(frames_of((FIRST, 0, coords)), end))
        np.testing.assert_array_equal(tracks[0].coords, coords)

    def test_tracking_state(self) -> None:
        coords = np.concatenate([standing(3), np.full((3, 25, 1), 2)], axis=2)
        coords[1, 4, 3], coords[2, 5, 3] = 1, 0
        text = skeleton_text(frames_of((1, 0, coords)))
        for least, unseen in ((1, {(2, 5)}), (2, {(1, 4), (2, 5)})):
            (track,) = parse(text, min_state=least)[1]
            assert set(map(tuple, np.argwhere(~track.valid))) == unseen
        coords[2, 7, 3] = 3
        with pytest.raises(DamagedFile, match=f"line {2 + 3 * 28 - 25 + 7}: tracking state is 3"):
            parse(skeleton_text(frames_of((1, 0, coords))), min_state=1)

    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.lists(st.integers(0, 4), max_size=4, unique=True), max_size=6), st.integers(0, 99))
    def test_any_coming_and_going(self, present: list[list[int]], seed: int) -> None:
        rng = np.random.default_rng(seed)
        frames = [
            {number: rng.normal(size=(25, 3)).astype(np.float32) for number in numbers} for numbers in present
        ]
        count, tracks = parse(skeleton_text(frames))
        assert count == len(present)
        order = list(dict.fromkeys(number for numbers in present for number in numbers))
        assert len(tracks) == len(order)
        for number, track in zip(order, tracks, strict=True):
            assert track.frames.tolist() == [t for t, numbers in enumerate(present) if number in numbers]
            np.testing.assert_array_equal(track.coords, [frames[t][number] for t in track.frames])


class TestDamage:
    """Three frames of one body are lines 1 (frame count), 2, 3, 4 (counts and body), 5-29 (joints), 30, ..."""

    text = skeleton_text(frames_of((FIRST, 0, standing(3))), "\n")

    def damage(self, content: bytes) -> DamagedFile:
        with pytest.raises(DamagedFile) as raised:
            parse(content)
        return raised.value

    def edit(self, line: int, new: str) -> bytes:
        lines = self.text.decode().splitlines()
        lines[line - 1] = new
        return "\n".join(lines).encode()

    @pytest.mark.parametrize(
        ("line", "new", "message"),
        [
            (1, "2", "goes on after its 2 frames"),
            (1, "4", "ends in frame 3 of 4, where the body count should be"),
            (1, "1000000000", "ends in frame 3 of 1000000000"),
            (1, "1e300", "ends in frame 3 of 1"),
            (1, "-1", "frame count is -1, expected a whole number"),
            (1, "2.5", "frame count is 2.5, expected a whole number"),
            (1, "nan", "frame count is nan"),
            (1, "inf", "frame count is inf"),
            (1, "3 3", "has 2, expected 1 number, the frame count"),
            (1, "three", "'three' is not a number"),
            (2, "2", "has 1, expected 10 numbers, a body's numbers, in frame 0"),
            (2, "0", "has 10, expected 1 number, the body count, in frame 1"),
            (3, "7 0 1", "has 3, expected 10 numbers, a body's numbers, in frame 0"),
            (4, "24", "joint count is 24, expected 25"),
            (5, "1 2 3", "has 3, expected 12 numbers, joint 0, in frame 0"),
            (36, "1 nan 3 4 5 6 7 8 9 10 11 2", "joint 3 of frame 1 is not finite"),
            (36, "1 1e39 3 4 5 6 7 8 9 10 11 2", "joint 3 of frame 1 is not finite"),
            (85, "1 -inf 3 4 5 6 7 8 9 10 11 2", "joint 24 of frame 2 is not finite"),
            (36, "1 2 3 4 5 6 7 8 9 10 1x 2", "'1x' is not a number"),
        ],
    )
    def test_line_and_reason(self, line: int, new: str, message: str) -> None:
        error = self.damage(self.edit(line, new))
        assert message in error.reason
        found = {"goes on": 58, "ends in": 85, "the body count, in frame 1": 3, "has 1, expected 10": 3}
        wanted = next((value for text, value in found.items() if text in error.reason), line)
        if line == 2 and new == "2":
            wanted = 30  # the second body is looked for after the first
        assert error.line == wanted

    def test_cut_off_anywhere(self) -> None:
        for length in range(0, len(self.text) - 2, 97):
            error = self.damage(self.text[:length])
            assert error.reason
            lines = self.text[:length].rstrip().count(b"\n") + 1
            assert error.line is None if length == 0 else 1 <= error.line <= lines

    def test_two_lines_run_together_or_apart(self) -> None:
        lines = self.text.splitlines()
        joined = b"\n".join([*lines[:9], lines[9] + b" " + lines[10], *lines[11:]])
        assert (self.damage(joined).line, "has 24" in self.damage(joined).reason) == (10, True)
        shifted = [
            *lines[:9],
            b" ".join(lines[9].split()[:-1]),
            lines[9].split()[-1] + b" " + lines[10],
            *lines[11:],
        ]
        error = self.damage(b"\n".join(shifted))
        assert (error.line, "has 11, expected 12" in error.reason) == (10, True)

    def test_other_encodings(self) -> None:
        assert self.damage(self.text.decode().encode("utf-16")).reason.startswith("is UTF-16 text")
        assert "expected ASCII" in self.damage(self.text.replace(b"25\n", "２５\n".encode(), 1)).reason
        assert parse(b"\xef\xbb\xbf" + self.text)[0] == 3

    @settings(deadline=None, max_examples=200)
    @given(st.data())
    def test_any_change_of_a_byte_is_read_or_refused(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.text) - 1))
        content = bytearray(self.text)
        content[place] = data.draw(st.integers(0, 255))
        try:
            _, tracks = parse(bytes(content))
        except DamagedFile:
            return
        assert sum(len(track.frames) for track in tracks) == 3
        assert all(np.isfinite(track.coords).all() for track in tracks)


class TestProtocols:
    """The published lists, written here a second time, from the papers' text and not from the code."""

    xsub60 = "1 2 4 5 8 9 13 14 15 16 17 18 19 25 27 28 31 34 35 38"
    xsub120 = (
        xsub60
        + " 45 46 47 49 50 52 53 54 55 56 57 58 59 70 74 78 80 81 82 83 84 85 86 89 91 92 93 94 95 97 98 100 103"
    )

    def columns(self) -> dict[str, torch.Tensor]:
        grid = torch.cartesian_prod(torch.arange(1, 33), torch.arange(1, 4), torch.arange(1, 107))
        return {"setup": grid[:, 0], "view": grid[:, 1], "subject": grid[:, 2]}

    @pytest.mark.parametrize(("actions", "listed", "count"), [(60, xsub60, 20), (120, xsub120, 53)])
    def test_xsub(self, actions: int, listed: str, count: int) -> None:
        columns = self.columns()
        split = splits(columns, actions)["xsub"]
        subjects = set(columns["subject"][split.train].tolist())
        assert subjects == set(map(int, listed.split()))
        assert len(subjects) == count
        assert torch.equal(split.test, ~split.train)

    def test_xview_and_xset(self) -> None:
        columns = self.columns()
        sixty, more = splits(columns, 60), splits(columns, 120)
        assert (list(sixty), list(more)) == (["xsub", "xview"], ["xsub", "xset"])
        xview, xset = sixty["xview"], more["xset"]
        assert set(columns["view"][xview.train].tolist()) == {2, 3}
        assert set(columns["view"][xview.test].tolist()) == {1}
        assert set(columns["setup"][xset.train].tolist()) == set(range(2, 33, 2))
        assert set(columns["setup"][xset.test].tolist()) == set(range(1, 32, 2))
        assert torch.equal(xset.test, ~xset.train)

    def test_names(self) -> None:
        assert ClipName.parse("S018C002P045R001A120") == ClipName(18, 2, 45, 1, 120)
        for name in (
            "S018C002P045R001A12",
            "xS018C002P045R001A120",
            "S018C002P045R001A120_",
            "s018c002p045r001a120",
        ):
            assert ClipName.parse(name) is None
        sixty, more = ClipName(17, 1, 1, 1, 60), ClipName(18, 1, 1, 1, 61)
        assert (sixty.belongs(60), sixty.belongs(120), more.belongs(60), more.belongs(120)) == (
            True,
            True,
            False,
            True,
        )
        assert not ClipName(18, 1, 1, 1, 60).belongs(60)
        assert not ClipName(1, 1, 1, 1, 0).belongs(60)
        assert not ClipName(33, 1, 1, 1, 1).belongs(120)

    def test_classes(self) -> None:
        assert len(set(ntu_protocols.ACTIONS)) == 120
        named = {
            1: "drink water",
            24: "kicking something",
            43: "falling",
            60: "walking apart from each other",
        }
        named |= {61: "put on headphone", 99: "running on the spot", 116: "follow other person"}
        assert {number: ntu_protocols.ACTIONS[number - 1] for number in named} == named
        assert NtuReader(60).label_names == ntu_protocols.ACTIONS[:60]

    def test_the_list_of_missing_skeletons(self) -> None:
        text = "302 of the captured samples have missing or incomplete skeleton data.\n\nS001C002P005R002A008\r\n"
        assert clip_names(text + "S001C003P002R001A055.skeleton\n") == {
            "S001C002P005R002A008",
            "S001C003P002R001A055",
        }

    def test_options(self) -> None:
        with pytest.raises(ValueError, match="actions is 61, expected 60 or 120"):
            NtuReader(61)
        with pytest.raises(ValueError, match="min_state is 3"):
            NtuReader(min_state=3)
        assert ntu.JOINTS == 25
