"""Tables with a row a frame: how people and tools call the columns of a joint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import PackedSkeletons, read
from fastamr.skeleton import get_layout

from ..reading import one_line
from ..writers_tables import write_dlc, write_rows, write_wide

COCO, MEDIAPIPE = get_layout("coco17").joints, get_layout("mediapipe33").joints
RNG = np.random.default_rng(0)
POINTS = RNG.uniform(5, 600, (4, 17, 2)).round(3).astype(np.float32)


def camel(joint: str) -> str:
    first, *rest = joint.split("_")
    return first + "".join(word.capitalize() for word in rest)


def told(path: Path, **options: Any) -> tuple[PackedSkeletons, list[str]]:
    notes: list[str] = []
    return read(path, say=notes.append, **options), [note.removeprefix("note: ") for note in notes]


NAMED: dict[str, Callable[[str, str], str]] = {
    "nose_x": lambda joint, axis: f"{joint}_{axis}",
    "nose_X": lambda joint, axis: f"{joint}_{axis.upper()}",
    "nose.x": lambda joint, axis: f"{joint}.{axis}",
    "nose/x": lambda joint, axis: f"{joint}/{axis}",
    "nose:x": lambda joint, axis: f"{joint}:{axis}",
    "nose-x": lambda joint, axis: f"{joint}-{axis}",
    "nose x pos": lambda joint, axis: f"{joint.replace('_', ' ')} {axis} pos",
    "nose (x)": lambda joint, axis: f"{joint} ({axis})",
    "nose[x]": lambda joint, axis: f"{joint}[{axis}]",
    "X_nose": lambda joint, axis: f"{axis.upper()}_{joint}",
    "leftWristX": lambda joint, axis: camel(joint) + axis.upper(),
    "LEFT_WRIST_x": lambda joint, axis: f"{joint.upper()}_{axis}",
    "LWrist_x": lambda joint, axis: f"{camel(joint).replace('left', 'L').replace('right', 'R')}_{axis}",
    "pose_nose_x": lambda joint, axis: f"pose_{joint}_{axis}",
    "nose_x_px": lambda joint, axis: f"{joint}_{axis}_px",
}
NUMBERED: dict[str, Callable[[int, str], str]] = {
    "x0": lambda joint, axis: f"{axis}{joint}",
    "x_0": lambda joint, axis: f"{axis}_{joint}",
    "0_x": lambda joint, axis: f"{joint}_{axis}",
    "kp0_x": lambda joint, axis: f"kp{joint}_{axis}",
    "j0x": lambda joint, axis: f"j{joint}{axis}",
    "landmark_00_x": lambda joint, axis: f"landmark_{joint:02d}_{axis}",
    "joint1_x": lambda joint, axis: f"joint{joint + 1}_{axis}",
    "x1": lambda joint, axis: f"{axis}{joint + 1}",
    "P1_x": lambda joint, axis: f"P{joint + 1}_{axis}",
}


@pytest.mark.parametrize("spelling", NAMED)
@pytest.mark.parametrize("score", ["", "conf", "visibility"])
def test_joints_by_name(tmp_path: Path, spelling: str, score: str) -> None:
    make = NAMED[spelling]
    path = write_wide(tmp_path / "walk.csv", POINTS, lambda joint, axis: make(COCO[joint], axis))
    if score and "X" not in spelling[-1:] and not spelling.endswith((")", "]", "pos", "px")):
        path = write_wide(path, POINTS, lambda joint, axis: make(COCO[joint], axis), score=score)
    data, notes = told(path)
    assert (data.layout.name, data.num_bodies, data.num_clips, data.names) == ("coco17", 1, 1, ["walk"])
    np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)
    assert not any("not read" in note for note in notes)


@pytest.mark.parametrize("spelling", NUMBERED)
def test_joints_by_number(tmp_path: Path, spelling: str) -> None:
    data, notes = told(write_wide(tmp_path / "some.csv", POINTS, NUMBERED[spelling]))
    assert data.layout.name == "coco17"
    assert data.valid is None
    np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)
    assert any("counted from 1" in note for note in notes) == ("1" in spelling)
    assert any("taken as layout coco17" in note for note in notes)


def test_a_minimum_in_shares_of_scores_in_percent_is_refused(tmp_path: Path) -> None:
    """Every score of 1 to 100 is above 0.3: the option would leave out nothing, in silence."""
    names = [f"{joint}_{value}" for joint in COCO for value in ("x", "y", "score")]
    rows = [[frame, *(score for _ in COCO for score in (7, 9, 20 + 10 * frame))] for frame in range(3)]
    path = write_rows(tmp_path / "some.csv", ["frame", *names], rows)
    with pytest.raises(
        ValueError, match=r"go up to 40, as percent do; .*, such as --min-confidence 30"
    ) as error:
        read(path, min_confidence=0.3)
    one_line(error, "some.csv")
    data, _ = told(path, min_confidence=30)
    assert data.coords[:, 0].tolist() == [[7, 9]] * 2  # of frames 1 and 2


def test_scores_beside_numbers(tmp_path: Path) -> None:
    """``x1, y1, z1, v1``: MediaPipe's landmarks counted from 1, with the class in front."""
    coords = RNG.uniform(size=(3, 33, 3)).astype(np.float32)
    path = write_wide(
        tmp_path / "some.csv",
        coords,
        lambda joint, axis: f"{axis}{joint + 1}",
        {"class": lambda _: "squat"},
        "v",
    )
    data, notes = told(path)
    assert (data.layout.name, data.label_names, data.labels.tolist()) == ("mediapipe33", ("squat",), [0])
    assert "no column for the frame: the rows are the frames, in the order of the file" in notes
    with pytest.raises(ValueError, match="no pose of the file has a joint that was seen"):
        read(path, min_confidence=0.95)


class TestMultipleLinesOfNames:
    def test_deeplabcut(self, tmp_path: Path) -> None:
        data, _ = told(write_dlc(tmp_path / "some.csv", {"": POINTS}, COCO))
        assert (data.layout.name, data.num_bodies) == ("coco17", 1)
        np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)

    def test_several_individuals(self, tmp_path: Path) -> None:
        data, _ = told(write_dlc(tmp_path / "some.csv", {"anna": POINTS, "ben": POINTS + 100}, COCO))
        assert data.body_names == ["anna", "ben"]
        np.testing.assert_allclose(data.coords[4:], POINTS + 100, atol=1e-3)

    def test_animals_are_a_layout_of_their_own(self, tmp_path: Path) -> None:
        data, notes = told(
            write_dlc(tmp_path / "some.csv", {"": POINTS[:, :4]}, ["snout", "leftear", "rightear", "tail"])
        )
        assert data.layout.joints == ("snout", "leftear", "rightear", "tail")
        assert any("layout of their own" in note for note in notes)

    def test_broken(self, tmp_path: Path) -> None:
        path = write_rows(tmp_path / "some.csv", ["scorer", "net"], [["bodyparts", "nose"], ["0", "1.0"]])
        with pytest.raises(
            ValueError, match="line 3: expected one of the lines scorer, individuals"
        ) as error:
            read(path)
        one_line(error, "some.csv")


class TestPeople:
    def test_sleap(self, tmp_path: Path) -> None:
        """``track, frame_idx, instance.score, nose.x, nose.y, nose.score``."""
        path = tmp_path / "some.csv"
        before: dict[str, Callable[[int], Any]] = {
            "track": lambda row: f"track_{row % 2}", "frame_idx": lambda row: row // 2,
            "instance.score": lambda row: row,
        }  # fmt: skip
        data, notes = told(
            write_wide(path, POINTS, lambda joint, axis: f"{COCO[joint]}.{axis}", before, "score")
        )
        assert data.body_names == ["track_0", "track_1"]
        np.testing.assert_allclose(data.coords[:2], POINTS[::2], atol=1e-3)
        assert "columns not read: instance.score" in notes

    def test_columns_name_them(self, tmp_path: Path) -> None:
        both = np.concatenate([POINTS, POINTS + 50], axis=1)
        path = write_wide(
            tmp_path / "some.csv", both, lambda joint, axis: f"person{joint // 17}_{COCO[joint % 17]}_{axis}"
        )
        data, _ = told(path)
        assert (data.num_bodies, data.body_names) == (2, ["person0", "person1"])
        np.testing.assert_allclose(data.coords[4:], POINTS + 50, atol=1e-2)

    def test_without_tracks_they_are_linked(self, tmp_path: Path) -> None:
        still = np.repeat(POINTS[:1], 3, axis=0) / 10
        rows = np.stack([still, still + 500], axis=1)
        rows[1] = rows[1, ::-1]
        path = write_wide(
            tmp_path / "some.csv", rows.reshape(6, 17, 2), lambda joint, axis: f"{COCO[joint]}_{axis}",
            {"frame": lambda row: row // 2},
        )  # fmt: skip
        data, notes = told(path)
        assert data.num_bodies == 2
        np.testing.assert_allclose(data.coords[:3], still, atol=1e-3)
        assert any("people are linked" in note for note in notes)
        with pytest.raises(ValueError, match=r"line 2: several people .* add a column 'body'") as error:
            read(path, track=False)
        one_line(error, "some.csv")


def test_what_else_a_row_tells(tmp_path: Path) -> None:
    before: dict[str, Callable[[int], Any]] = {
        "Video": lambda row: f"v{row // 2}.mp4", "timestamp_ms": lambda row: 40 * (row % 2), "Action": lambda _: "wave",
        "subject_id": lambda _: 3, "split": lambda row: "Train" if row < 2 else "TEST", "bbox_x": lambda row: row,
        "bbox_y": lambda row: row, "room": lambda row: f"room {row // 2}",
    }  # fmt: skip
    path = write_wide(tmp_path / "some.csv", POINTS, lambda joint, axis: f"{COCO[joint]}_{axis}", before)
    data, notes = told(path)
    assert (data.names, data.label_names, data.labels.tolist()) == (["v0.mp4", "v1.mp4"], ("wave",), [0, 0])
    assert data.fps.tolist() == [25, 25]
    assert data.columns["subject"].tolist() == [3, 3]
    assert (data.columns["room"].tolist(), data.column_names["room"]) == ([0, 1], ("room 0", "room 1"))
    assert data.splits["official"].train.tolist() == [True, False]
    assert data.splits["official"].test.tolist() == [False, True]
    assert "columns not read: bbox_x, bbox_y" in notes


@pytest.mark.parametrize("unit", ["nose_x_mm", "nose_x (mm)", "nose_x [mm]", "nose_X_MM"])
def test_millimetres_become_metres(tmp_path: Path, unit: str) -> None:
    coords = RNG.normal(size=(3, 17, 3)).astype(np.float32) * 500
    make = unit.replace("nose", "{0}").replace("x", "{1}").replace("X", "{1}").format
    data, notes = told(write_wide(tmp_path / "some.csv", coords, lambda joint, axis: make(COCO[joint], axis)))
    np.testing.assert_allclose(data.coords, coords / 1000, atol=1e-6)
    assert "coordinates in 'mm', as their columns say, are scaled to metres" in notes


@pytest.mark.parametrize(
    ("unit", "metres"),
    [("(in)", 0.0254), ("[Inches]", 0.0254), ("inch", 0.0254), ("(ft)", 0.3048), ("[feet]", 0.3048)],
)
def test_inches_and_feet_become_metres(tmp_path: Path, unit: str, metres: float) -> None:
    coords = RNG.normal(size=(3, 17, 3)).astype(np.float32) * 5
    data, notes = told(
        write_wide(tmp_path / "a.csv", coords, lambda joint, axis: f"{COCO[joint]} {axis} {unit}")
    )
    np.testing.assert_allclose(data.coords, coords * metres, atol=1e-4)
    assert (
        f"coordinates in {unit.strip('()[]').lower()!r}, as their columns say, are scaled to metres" in notes
    )


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("[furlongs]", "furlongs"),
        ("(arbitrary units)", "arbitrary units"),
        ("(px)", ""),
        ("[pixels]", ""),
        ("(m)", ""),
    ],
)
def test_a_unit_that_is_not_known_is_said(tmp_path: Path, unit: str, said: str) -> None:
    coords = RNG.uniform(1, 9, size=(3, 17, 3)).astype(np.float32)
    data, notes = told(
        write_wide(tmp_path / "a.csv", coords, lambda joint, axis: f"{COCO[joint]}_{axis} {unit}")
    )
    np.testing.assert_allclose(data.coords, coords, atol=1e-4)
    told_of = [note for note in notes if note.startswith("coordinates in")]
    assert [note.split(",")[0] for note in told_of] == ([f"coordinates in {said!r}"] if said else [])


def test_words_in_brackets_that_are_no_unit(tmp_path: Path) -> None:
    """Feet are joints, and a remark in brackets before the unit hides it from nobody."""
    coords = RNG.normal(size=(3, 2, 3)).astype(np.float32)
    feet = ("left_foot", "right_foot")
    data, notes = told(write_wide(tmp_path / "feet.csv", coords, lambda joint, axis: f"{axis}_{feet[joint]}"))
    assert data.layout.joints == feet
    assert not [note for note in notes if note.startswith("coordinates in")]
    data, _ = told(
        write_wide(
            tmp_path / "a.csv", coords, lambda joint, axis: f"{feet[joint]} (side {joint}) {axis} [mm]"
        )
    )
    np.testing.assert_allclose(data.coords, coords / 1000, atol=1e-6)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            ["frame", "nose_x", "nose_y", "neck_x"],
            "the columns are frame, nose_x, nose_y, neck_x; expected a row a joint",
        ),
        (
            ["frame", "nose_x", "nose_y", "neck_x", "neck_y", "neck_z"],
            "'neck' has x, y and z, 'nose' has x and y only",
        ),
        (
            ["nose_x", "nose_y", "nose.x", "neck_x", "neck_y"],
            "columns 'nose_x' and 'nose.x' could both be x of nose",
        ),
        (
            ["joint", "x", "y", "a_x", "a_y", "b_x", "b_y", "c_x", "c_y"],
            "two forms, 'joint' with 'x' and 'a_x'",
        ),
        (["nose_x_mm", "nose_y_mm", "neck_x_cm", "neck_y_cm"], "in several units: cm, mm"),
        (["nose_x (px)", "nose_y (px)", "nose_z (mm)", "a_x (px)", "a_y (px)", "a_z (mm)"], "units: mm, px"),
        (["nose_x_mm", "nose_y_mm", "neck_x", "neck_y"], "in several units: mm and none"),
        (
            ["frame", "a_x", "a_y", "b_x", "b_y", "frame_id"],
            "columns 'frame' and 'frame_id' could both be the frame",
        ),
    ],
)
def test_columns_that_cannot_be_told(tmp_path: Path, header: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read(write_rows(tmp_path / "some.csv", header, [["1"] * len(header)]))
    one_line(error, "some.csv")
