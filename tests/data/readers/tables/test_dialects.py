"""Tables as pandas, spreadsheets and DeepLabCut write them, and what looks like one thing and is another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastamr.data
from fastamr.data import PackedSkeletons
from fastamr.skeleton import get_layout

from ..reading import one_line
from ..writers_tables import write_dlc, write_rows, write_wide

COCO = get_layout("coco17").joints
POINTS = np.random.default_rng(3).uniform(5, 600, (4, 17, 2)).round(3).astype(np.float32)


def told(path: Path, **options: Any) -> tuple[PackedSkeletons, list[str]]:
    notes: list[str] = []
    data = fastamr.data.read(path, say=notes.append, **options)
    return data, [note.removeprefix("note: ") for note in notes]


def named(joint: int, axis: str) -> str:
    return f"{COCO[joint]}_{axis}"


class TestPandas:
    def test_repeated_names(self, tmp_path: Path) -> None:
        path = write_wide(
            tmp_path / "a.csv", POINTS, lambda joint, axis: f"{axis}.{joint}" if joint else axis
        )
        data, notes = told(path, layout="coco17")
        assert data.valid is None
        np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)
        assert not any("not read" in note for note in notes)

    @pytest.mark.parametrize("form", ["('{0}', '{1}')", "('DLC_resnet50', '{0}', '{1}')"])
    def test_tuples_as_names(self, tmp_path: Path, form: str) -> None:
        path = write_wide(
            tmp_path / "a.csv",
            POINTS,
            lambda joint, axis: '"' + form.format(COCO[joint], axis) + '"',
            {"": lambda frame: frame},
        )
        data, _ = told(path)
        assert data.layout.name == "coco17"
        np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)

    def test_first_words_that_all_joints_share(self, tmp_path: Path) -> None:
        path = write_wide(tmp_path / "a.csv", POINTS, lambda joint, axis: f"net_2_{COCO[joint]}_{axis}")
        assert told(path)[0].layout.name == "coco17"
        arm = ("left_shoulder", "left_elbow", "left_wrist")
        path = write_wide(path, POINTS[:, :3], lambda joint, axis: f"{arm[joint]}_{axis}")
        assert told(path)[0].layout.joints == arm


class TestDeepLabCut:
    def test_points_without_an_individual_are_no_body(self, tmp_path: Path) -> None:
        path = write_dlc(tmp_path / "a.csv", {"one": POINTS, "two": POINTS + 9}, COCO)
        lines = path.read_text().splitlines()
        more = [["net"] * 2, ["single"] * 2, ["corner"] * 2, ["x", "y"], *[[5, 6]] * len(POINTS)]
        path.write_text(
            "\n".join(",".join(map(str, [line, *cells])) for line, cells in zip(lines, more, strict=True))
        )
        data, notes = told(path)
        assert (data.layout.name, data.body_names) == ("coco17", ["one", "two"])
        assert "single (corner): no joint of the others, left out" in notes

    def test_rows_of_folder_video_and_image(self, tmp_path: Path) -> None:
        path = write_dlc(tmp_path / "a.csv", {"": np.concatenate([POINTS, POINTS + 9])}, COCO)
        lines = [line.split(",") for line in path.read_text().splitlines()]
        lines = [[line[0], "", "", *line[1:]] for line in lines[:3]] + [
            ["labeled-data", f"v{row // 4}", f"img{row % 4:03d}.png", *line[1:]]
            for row, line in enumerate(lines[3:])
        ]
        data, _ = told(write_rows(path, lines[0], lines[1:]))
        assert (data.names, data.num_bodies) == (["v0", "v1"], 2)
        np.testing.assert_allclose(data.coords, np.concatenate([POINTS, POINTS + 9]), atol=1e-3)


class TestNumbers:
    @staticmethod
    def table(path: Path, cells: list[str]) -> Path:
        header = ["frame", *(named(joint, axis) for joint in range(17) for axis in "xy")]
        return write_rows(path, header, [[frame, *[cell] * 34] for frame, cell in enumerate(cells)], ";")

    def test_decimal_commas_are_said(self, tmp_path: Path) -> None:
        data, notes = told(self.table(tmp_path / "a.csv", ["300,125", "301,5", "302"]))
        assert data.coords[:, 0, 0].tolist() == [300.125, 301.5, 302]
        assert "commas in numbers are decimal commas: '301,5' is 301.5" in notes
        data, notes = told(self.table(tmp_path / "a.csv", ["300,125", "301,500"]))
        assert data.coords[:, 0, 0].tolist() == [300.125, 301.5]
        assert "commas in numbers are decimal commas: '300,125' is 300.125" in notes

    def test_commas_that_may_separate_thousands(self, tmp_path: Path) -> None:
        path = self.table(tmp_path / "a.csv", ["998", "1,002", "1,006"])
        with pytest.raises(ValueError, match=r"line 3: '1,002' may be a number of thousands") as error:
            told(path)
        one_line(error, "a.csv")

    @pytest.mark.parametrize("cell", ["1.234,5", "1,234,567", "1,234.5"])
    def test_thousands_and_decimals(self, tmp_path: Path, cell: str) -> None:
        with pytest.raises(
            ValueError, match=r"expected a number; write numbers without separators of thousands"
        ):
            told(self.table(tmp_path / "a.csv", [cell]))

    def test_decimal_commas_of_time_and_rate(self, tmp_path: Path) -> None:
        before = {"time": lambda frame: f"{frame * 0.04:.2f}".replace(".", ",")}
        data, notes = told(write_wide(tmp_path / "a.csv", POINTS, named, before, separator=";"))
        assert data.fps.tolist() == [pytest.approx(25)]
        assert not any("not read" in note for note in notes)

    def test_a_row_of_units_is_one_note(self, tmp_path: Path) -> None:
        path = write_wide(tmp_path / "a.csv", POINTS, named)
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], ",".join(["#", *["px"] * 34]), *lines[1:]]))
        data, notes = told(path)
        assert data.num_frames == 4
        assert (
            "1 of 5 cells of columns 'nose_x', 'nose_y', 'left_eye_x', ... (34 in all) taken as not seen, first in "
            "line 2: nose_x is 'px', expected a number"
        ) in notes


class TestClipsThatFollowEachOther:
    """A frame that comes again may be another clip or another person: never linked as people of one clip."""

    def test_a_row_a_frame(self, tmp_path: Path) -> None:
        frames = {"frame": lambda row: row % 4}
        path = write_wide(tmp_path / "a.csv", np.concatenate([POINTS, POINTS + 9]), named, frames)
        with pytest.raises(ValueError, match=r"line 6: frame 0 comes again.*add a column 'clip'") as error:
            told(path)
        one_line(error, "a.csv")
        pairs = np.stack([POINTS, POINTS + 900], axis=1).reshape(8, 17, 2)
        data, _ = told(write_wide(path, pairs, named, {"frame": lambda row: row // 2}))
        assert data.num_bodies == 2

    def test_a_row_a_joint(self, tmp_path: Path) -> None:
        rows = [[f, COCO[j], *POINTS[f, j]] for _ in range(2) for f in range(4) for j in range(17)]
        path = write_rows(tmp_path / "a.csv", ["frame", "joint", "x", "y"], rows)
        with pytest.raises(ValueError, match=r"line 70: frame 0 comes again, and no column tells whether"):
            told(path)


class TestKinect:
    AZURE = get_layout("azure32").joints

    def test_orientations_are_no_joints(self, tmp_path: Path) -> None:
        coords = np.random.default_rng(0).normal(size=(3, 32, 3)).astype(np.float32)
        values = ("position.x", "position.y", "position.z", "orientation.w", "orientation.x", "orientation.y")
        header = [
            "frame",
            *(f"{joint}.{value}" for joint in self.AZURE for value in (*values, "confidence_level")),
        ]
        rows = [
            [
                frame,
                *(
                    cell
                    for joint in range(32)
                    for cell in (*pose[joint], 1, frame, 0, 0 if joint == 3 else 2)
                ),
            ]
            for frame, pose in enumerate(coords)
        ]
        data, notes = told(write_rows(tmp_path / "a.csv", header, rows))
        assert data.layout.name == "azure32"
        assert data.valid is not None
        assert (~data.valid).nonzero()[:, 1].tolist() == [3, 3, 3]
        shown = np.delete(np.arange(32), 3)
        np.testing.assert_allclose(data.coords[:, shown], coords[:, shown], atol=1e-4)
        assert any("columns not read" in note and "orientation" in note for note in notes)

    @pytest.mark.parametrize(
        ("column", "words"),
        [("TrackingState", ("Tracked", "NotTracked")), ("confidence", ("MEDIUM", "NONE")),
         ("confidence_level", ("K4ABT_JOINT_CONFIDENCE_LOW", "K4ABT_JOINT_CONFIDENCE_NONE"))],
    )  # fmt: skip
    def test_states_as_words(self, tmp_path: Path, column: str, words: tuple[str, str]) -> None:
        rows = [[f, COCO[j], *POINTS[f, j], words[j == 9]] for f in range(4) for j in range(17)]
        data, notes = told(write_rows(tmp_path / "a.csv", ["frame", "joint", "x", "y", column], rows))
        assert data.valid is not None
        assert (~data.valid).nonzero()[:, 1].tolist() == [9] * 4
        assert not any("not read" in note for note in notes)

    def test_ticks_of_100_nanoseconds(self, tmp_path: Path) -> None:
        before = {"Timestamp": lambda frame: 636000000000000000 + frame * 333333}
        data, notes = told(write_wide(tmp_path / "a.csv", POINTS, named, before))
        assert data.fps.tolist() == [pytest.approx(30, rel=1e-2)]
        assert "column 'Timestamp' is taken as ticks of 100 nanoseconds" in notes
        before = {"RelativeTime": lambda frame: f"00:00:00.{frame * 333333:07d}"}
        assert told(write_wide(tmp_path / "a.csv", POINTS, named, before))[0].fps.tolist() == [
            pytest.approx(30, rel=1e-2)
        ]


class TestDetectors:
    def test_the_box_and_the_class_of_a_detector(self, tmp_path: Path) -> None:
        before = {"frame": int, "name": lambda _: "person", "class": lambda _: 0}
        before |= {corner: lambda _: 5 for corner in ("x1", "y1", "x2", "y2")}
        path = write_wide(tmp_path / "a.csv", POINTS, lambda joint, axis: f"kp{joint}_{axis}", before)
        data, notes = told(path, layout="coco17")
        assert (data.names, data.labels.tolist(), data.num_bodies) == (["a"], [-1], 1)
        np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)
        assert any("columns not read: name, class" in note for note in notes)
        del before["name"]
        path = write_wide(path, POINTS, lambda joint, axis: f"kp{joint}_{axis}", before)
        assert told(path, layout="coco17")[0].labels.tolist() == [-1]


class TestLinesOfNames:
    @pytest.mark.parametrize("blank", [False, True])
    def test_two_lines(self, tmp_path: Path, blank: bool) -> None:
        first = ["", *("" if blank and axis == "y" else joint for joint in COCO for axis in "xy")]
        rows = [["", *["x", "y"] * 17], *([frame, *pose.ravel()] for frame, pose in enumerate(POINTS))]
        data, _ = told(write_rows(tmp_path / "a.csv", first, rows))
        assert data.layout.name == "coco17"
        np.testing.assert_allclose(data.coords, POINTS, atol=1e-3)
        with pytest.raises(ValueError, match=r"names that occur again, expected x, y, \.\.\. below them"):
            told(write_rows(tmp_path / "a.csv", first, rows[1:]))

    @pytest.mark.parametrize(
        ("line", "tool"),
        [("Trajectories", "Vicon"), ("NO_OF_FRAMES,7", "Qualisys"), ("Format Version,1.23,Take Name,a", "OptiTrack"),
         ("PathFileType,4,(X/Y/Z),a.trc", "OpenSim")],
    )  # fmt: skip
    def test_tools_with_several_lines(self, tmp_path: Path, line: str, tool: str) -> None:
        path = tmp_path / "a.csv"
        path.write_text(f"{line}\n100\n,,a,,\nFrame,Sub Frame,X,Y,Z\n1,0,1,2,3\n")
        with pytest.raises(ValueError, match=rf"a table of {tool}.*write one line, Frame, NAME_x") as error:
            told(path)
        one_line(error, "a.csv")

    def test_words_that_all_joints_share(self, tmp_path: Path) -> None:
        rows = [[f, f"body_{COCO[j]}", *POINTS[f, j]] for f in range(4) for j in range(17)]
        path = write_rows(tmp_path / "a.csv", ["frame", "keypoint", "x", "y"], rows)
        assert told(path)[0].layout.name == "coco17"
        path = write_wide(path, POINTS[:, :3], lambda joint, axis: f"{'abc'[joint]}_paw_{axis}")
        assert told(path)[0].layout.joints == ("a_paw", "b_paw", "c_paw")
        path = write_wide(path, POINTS, lambda joint, axis: f"{COCO[joint]}-Joint-Posi-{axis}")
        assert told(path)[0].layout.name == "coco17"
