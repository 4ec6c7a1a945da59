"""Tables with a row a joint: spellings of columns, what else a row tells, and what is wrong with some rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import PackedSkeletons, read
from fastamr.skeleton import get_layout

from ..reading import one_line
from ..writers_tables import write_rows

COCO, MEDIAPIPE = get_layout("coco17").joints, get_layout("mediapipe33").joints
POINTS = np.random.default_rng(0).uniform(5, 600, (4, 17, 2)).round(3)


def told(path: Path, **options: Any) -> tuple[PackedSkeletons, list[str]]:
    notes: list[str] = []
    return read(path, say=notes.append, **options), [note.removeprefix("note: ") for note in notes]


def table(
    path: Path,
    header: Sequence[str],
    cells: Callable[[int, int], Sequence[Any]],
    frames: int = 4,
    joints: int = 17,
    **how: Any,
) -> Path:
    """``cells(frame, joint)`` is a row."""
    return write_rows(
        path, header, [cells(frame, joint) for frame in range(frames) for joint in range(joints)], **how
    )


def xy(frame: int, joint: int) -> tuple[float, float]:
    return tuple(POINTS[frame, joint])


@pytest.mark.parametrize(
    "header",
    [
        "frame_idx,track_id,keypoint_idx,x,y,confidence", "Frame,Person_ID,Joint,X,Y,Score",
        "image_id,person,keypoint,x_px,y_px,likelihood", "frame_no,body,landmark,pos_x,pos_y,v",
        "frameNumber,skeletonId,jointIndex,X,Y,visibility", "FRAME,BODY,KP,x_coord,y_coord,prob",
        "frame_id,human_id,marker_id,image_x,image_y,presence", "frame,id,point,x (px),y (px),conf",
        "img,pid,bodypart,keypoint_x,keypoint_y,keypoint_score", "frame,trackingId,joint_id,x2d,y2d,visible",
    ],
)  # fmt: skip
def test_spellings(tmp_path: Path, header: str) -> None:
    path = table(
        tmp_path / "a.csv", header.split(","), lambda f, j: [f, 7, j, *xy(f, j), 0 if j == 9 else 0.9]
    )
    data, notes = told(path)
    assert (data.layout.name, data.num_bodies, data.body_names) == ("coco17", 1, ["7"])
    assert data.valid is not None
    assert (~data.valid).sum(0).tolist() == [0] * 9 + [4] + [0] * 7
    assert not any("not read" in note for note in notes)
    shown = np.delete(np.arange(17), 9)
    np.testing.assert_allclose(data.coords[:, shown], POINTS[:, shown], atol=1e-3)


def test_names_beat_numbers(tmp_path: Path) -> None:
    header = ["frame", "landmark_id", "landmark_name", "x", "y", "z", "visibility", "presence"]
    path = table(
        tmp_path / "a.csv",
        header,
        lambda f, j: [f, 32 - j, MEDIAPIPE[j].upper(), f, j, 1, 0.9, 0.01 * j],
        joints=33,
    )
    data, notes = told(path)
    assert data.layout.name == "mediapipe33"
    assert data.coords[0, :, 1].tolist() == list(range(33))
    assert "columns not read: landmark_id, presence" in notes


@pytest.mark.parametrize(
    ("values", "unseen"),
    [(("true", "false"), 4), (("2", "0"), 4), (("1", "2"), 0), (("0.9", ""), 4), (("0.9", "NA"), 4)],
)
def test_visibility(tmp_path: Path, values: tuple[str, str], unseen: int) -> None:
    path = table(
        tmp_path / "a.csv",
        ["frame", "joint", "x", "y", "visible"],
        lambda f, j: [f, j, *xy(f, j), values[j == 9]],
    )
    data, _ = told(path)
    assert (0 if data.valid is None else int((~data.valid).sum())) == unseen


@pytest.mark.parametrize(
    ("first", "name"),
    [(0, "coco17"), (1, "coco17"), (0, "kinect20"), (1, "kinect20"), (0, "azure32"), (1, "mediapipe33")],
)
def test_numbers_from_0_and_from_1(tmp_path: Path, first: int, name: str) -> None:
    layout = get_layout(name)
    channels = 2 if name == "coco17" else 3
    path = table(
        tmp_path / "a.csv", ["frame", "joint", "x", "y", "z"][: 2 + channels],
        lambda f, j: [f, j + first, 10 + j, 200 + f, 2][: 2 + channels], joints=layout.num_joints,
    )  # fmt: skip
    data, notes = told(path)
    assert data.layout is layout
    assert data.valid is None
    assert data.coords[0, :, 0].tolist() == [10 + joint for joint in range(layout.num_joints)]
    assert any("counted from 1" in note for note in notes) == bool(first)
    assert any(f"taken as layout {name}" in note for note in notes)


def test_a_count_that_several_layouts_have(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", ["frame", "joint", "x", "y", "z"], lambda f, j: [f, j, 1, 2, 3])
    with pytest.raises(
        ValueError, match=r"several layouts have; choose one: .*--layout coco17 or --layout h36m17"
    ) as error:
        read(path)
    one_line(error, "a.csv")
    assert read(path, layout="h36m17").layout.name == "h36m17"


def test_a_depth_that_is_a_score(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        ["frame", "joint", "x", "y", "z"],
        lambda f, j: [f, j, *xy(f, j), 0 if j == 9 else 0.5],
    )
    data, notes = told(path)
    assert data.coords.shape[-1] == 2
    assert data.valid is not None
    assert int((~data.valid).sum()) == 4
    assert any("taken as the confidence, not as a coordinate" in note for note in notes)


class TestFrames:
    @pytest.mark.parametrize(
        ("column", "factor", "said"),
        [("time", 0.04, True), ("time_s", 0.04, False), ("timestamp_ms", 40, False), ("timestamp", 40, True),
         ("timestamp (us)", 40000, False), ("t", 0.04, True), ("frame_time_ns", 4e7, False)],
    )  # fmt: skip
    def test_of_times(self, tmp_path: Path, column: str, factor: float, said: bool) -> None:
        path = table(
            tmp_path / "a.csv",
            [column, "joint", "x", "y"],
            lambda f, j: [factor * (f + (f > 2)), j, *xy(f, j)],
        )
        data, notes = told(path)
        assert data.num_frames == 5
        assert not data.coords[3].any(), "a frame without rows stays empty"
        assert data.fps.tolist() == pytest.approx([25], rel=1e-5)
        assert any("is taken as" in note and "seconds" in note for note in notes) == said

    def test_of_clock_times_and_of_uneven_ones(self, tmp_path: Path) -> None:
        header = ["time", "joint", "x", "y"]
        clock = table(tmp_path / "a.csv", header, lambda f, j: [f"2024-01-01 00:00:0{f}.500", j, *xy(f, j)])
        assert told(clock)[0].fps.tolist() == [1]
        uneven = table(tmp_path / "a.csv", header, lambda f, j: [f**2 + 0.3 * f, j, *xy(f, j)])
        data, notes = told(uneven)
        assert data.num_frames == 4
        assert any("uneven" in note for note in notes)

    def test_of_image_names(self, tmp_path: Path) -> None:
        for column in ("image", "filename"):
            path = table(
                tmp_path / "a.csv", [column, "joint", "x", "y"], lambda f, j: [f"f_{f:03d}.jpg", j, *xy(f, j)]
            )
            data, _ = told(path)
            assert (data.num_clips, data.num_frames) == (1, 4)

    def test_none(self, tmp_path: Path) -> None:
        path = table(tmp_path / "a.csv", ["joint", "x", "y"], lambda f, j: [j, *xy(f, j)])
        with pytest.raises(
            ValueError, match=r"no column for the frame; add one named frame .* or time \(seconds\)"
        ):
            read(path)


class TestPeople:
    def test_whole_people_are_linked(self, tmp_path: Path) -> None:
        rows = [
            [f, j, round(j * 7 + 400 * person, 3), j]
            for f in range(3)
            for person in range(2)
            for j in range(17)
        ]
        path = write_rows(tmp_path / "a.csv", ["frame", "joint", "x", "y"], rows)
        data, notes = told(path)
        assert data.num_bodies == 2
        assert any("people are linked" in note for note in notes)
        with pytest.raises(ValueError, match="several people in a frame and no tracks; add a column 'body'"):
            read(path, track=False)
        write_rows(path, ["frame", "joint", "x", "y"], rows[:-1])
        with pytest.raises(
            ValueError, match=r"line 19: the same joint in the same frame as line 2, .*column 'body'"
        ):
            read(path)

    def test_a_column_id_that_numbers_the_rows(self, tmp_path: Path) -> None:
        path = table(
            tmp_path / "a.csv", ["id", "frame", "joint", "x", "y"], lambda f, j: [17 * f + j, f, j, *xy(f, j)]
        )
        data, notes = told(path)
        assert data.num_bodies == 1
        assert "columns not read: id" in notes

    def test_a_column_id_that_names_clips(self, tmp_path: Path) -> None:
        path = table(
            tmp_path / "a.csv",
            ["id", "frame", "joint", "x", "y"],
            lambda f, j: ["ab"[f % 2], f // 2, j, *xy(f, j)],
        )
        data, notes = told(path)
        assert data.names == ["a", "b"]
        assert "column 'id' is taken as the name of the clip" in notes


class TestClips:
    HEADER = ("clip", "frame", "joint", "x", "y")

    def test_what_holds_for_whole_clips(self, tmp_path: Path) -> None:
        header = [
            *self.HEADER,
            "fps",
            "camera_id",
            "actor",
            "label",
            "weather",
            "noise",
            "split_xsub",
            "subset",
            "weight",
        ]
        path = table(
            tmp_path / "a.csv", header,
            lambda f, j: [f"c{f % 2}", f // 2, j, *xy(f, j), 25, f % 2 + 1, "s1", ["run", "walk"][f % 2], "sun", j,
                          ["test", "train"][f % 2], ["val", "train"][f % 2], 60.5],
        )  # fmt: skip
        data, notes = told(path)
        assert data.fps.tolist() == [25, 25]
        assert [data.label_names[label] for label in data.labels] == ["run", "walk"]
        assert data.columns["view"].tolist() == [1, 2]
        assert data.column_names["subject"] == ("s1",)
        assert (data.column_names["weather"], data.columns["weight"].tolist()) == (("sun",), [60.5, 60.5])
        assert data.splits["xsub"].test.tolist() == [True, False]
        assert data.splits["official"].test.tolist() == [True, False], (
            "without a test half the held-out clips are tested"
        )
        assert "columns not read: noise" in notes
        assert "column 'split_xsub' gives split 'xsub': 1 train / 1 test" in notes

    def test_three_halves_and_other_words(self, tmp_path: Path) -> None:
        path = table(
            tmp_path / "a.csv", [*self.HEADER, "split", "fold_split"],
            lambda f, j: [f"c{f}", 0, j, *xy(f, j), ["train", "val", "test", "train"][f], f % 2],
        )  # fmt: skip
        data, notes = told(path)
        split = data.splits["official"]
        assert (split.train.tolist(), split.test.tolist()) == (
            [True, False, False, True],
            [False, False, True, False],
        )
        assert "column 'split' gives split 'official': 2 train / 1 test, 1 in neither" in notes
        assert data.columns["fold_split"].tolist() == [0, 1, 0, 1]

    def test_numbered_clips_come_in_order(self, tmp_path: Path) -> None:
        path = table(tmp_path / "a.csv", self.HEADER, lambda f, j: [f"c{[10, 9, 2, 1][f]}", 0, j, *xy(f, j)])
        assert read(path).names == ["c1", "c2", "c9", "c10"]

    @pytest.mark.parametrize(
        ("more", "cells", "message"),
        [
            (
                ["score", "confidence"],
                [1, 1],
                "columns 'score' and 'confidence' could both be the confidence",
            ),
            (["action", "label"], ["a", "b"], "columns 'action' and 'label' could both be the label"),
            (["image_x"], [1], "columns 'x' and 'image_x' could both be x"),
            (["landmark"], [1], "columns 'joint' and 'landmark' could both be the joint"),
            (["person", "body"], [1, 1], "columns 'person' and 'body' could both be the body"),
        ],
    )
    def test_two_that_could_be_one(
        self, tmp_path: Path, more: list[str], cells: list[Any], message: str
    ) -> None:
        path = table(tmp_path / "a.csv", [*self.HEADER, *more], lambda f, j: ["c", f, j, *xy(f, j), *cells])
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        one_line(error, "a.csv")

    def test_a_clip_on_both_sides(self, tmp_path: Path) -> None:
        header = [*self.HEADER, "split"]
        path = table(
            tmp_path / "a.csv", header, lambda f, j: ["c", f, j, *xy(f, j), ["train", "test"][f % 2]]
        )
        with pytest.raises(ValueError, match="line 19: split is 'test', but clip 'c' began with 'train'"):
            read(path)


class TestCells:
    HEADER = ("frame", "joint", "x", "y")

    @pytest.mark.parametrize("missing", ["", "NaN", "NA", "null", "None", "-"])
    def test_missing(self, tmp_path: Path, missing: str) -> None:
        path = table(
            tmp_path / "a.csv", self.HEADER, lambda f, j: [f, j, *((missing,) * 2 if j == 3 else xy(f, j))]
        )
        data, notes = told(path)
        assert data.valid is not None
        assert int((~data.valid).sum()) == 4
        assert not any("cells" in note for note in notes)

    def test_one_bad_cell_costs_one_joint_one_bad_row_costs_one_row(self, tmp_path: Path) -> None:
        rows = [[f, j, *map(str, xy(f, j))] for f in range(4) for j in range(17)]
        rows[20][2], rows[30][3], rows[40] = "left", "inf", [2, 6]
        rows[50][0], rows[60][1] = "?", ""
        data, notes = told(write_rows(tmp_path / "a.csv", self.HEADER, rows))
        assert data.valid is not None
        assert int((~data.valid).sum()) == 5
        for said in (
            "1 of 67 cells of column 'x' taken as not seen, first in line 22: x is 'left', expected a number",
            "1 of 67 cells of column 'y' taken as not seen, first in line 32: y is 'inf', which is not finite",
            "1 of 68 rows left out, first in line 42: 2 cells, expected at least 4",
            "1 of 67 rows left out, first in line 52: frame is '?', expected a whole number from 0",
            "1 of 67 rows left out, first in line 62: joint is empty",
        ):
            assert said in notes

    def test_corner_of_the_image_is_no_joint(self, tmp_path: Path) -> None:
        path = table(tmp_path / "a.csv", self.HEADER, lambda f, j: [f, j, *((0, 0) if j == 3 else xy(f, j))])
        data, notes = told(path)
        assert data.valid is not None
        assert int((~data.valid).sum()) == 4
        assert "4 joints at exactly (0, 0) are taken as not seen" in notes
        centred = table(tmp_path / "a.csv", self.HEADER, lambda f, j: [f, j, *(POINTS[f, j] - POINTS[f, 3])])
        assert told(centred)[0].valid is None

    @pytest.mark.parametrize("separator", [";", "\t", "|"])
    def test_decimal_commas(self, tmp_path: Path, separator: str) -> None:
        def cells(f: int, j: int) -> list[Any]:
            return [f, j, *(str(value).replace(".", ",") for value in xy(f, j))]

        data, _ = told(table(tmp_path / "a.csv", self.HEADER, cells, separator=separator))
        np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)
        with pytest.raises(ValueError, match="with decimal commas, separate the columns by semicolons"):
            read(table(tmp_path / "a.csv", self.HEADER, cells))

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("first", ["frame", "# frame"])
    def test_encodings_and_comments(self, tmp_path: Path, encoding: str, first: str) -> None:
        header = [first, *self.HEADER[1:]]
        path = table(tmp_path / "a.csv", header, lambda f, j: [f"{f}.0", j, *xy(f, j)], encoding=encoding)
        assert told(path)[0].num_frames == 4
