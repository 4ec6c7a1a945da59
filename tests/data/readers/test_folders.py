"""Several files and folders of any kind as one data set."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastamr.cli import main
from fastamr.data import PackedSkeletons, import_file, label_clips, read
from fastamr.skeleton import get_layout

from . import writers_generic as write


def write_csv(
    path: Path, *, layout: str = "kinect20", frames: int = 3, clips: tuple[str, ...] = (), seed: int = 0
) -> None:
    """One clip, or several in a column ``clip``; a row a joint, joints by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    points = np.random.default_rng(seed).normal(
        size=(len(clips) or 1, frames, get_layout(layout).num_joints, 3)
    )
    lines = ["frame,joint,x,y,z" + ",clip" * bool(clips)]
    for number, clip in enumerate(points):
        for frame, pose in enumerate(clip):
            for name, (x, y, z) in zip(get_layout(layout).joints, pose, strict=True):
                end = f",{clips[number]}" if clips else ""
                lines.append(f"{frame},{name},{x:.4f},{y:.4f},{z:.4f}{end}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with clips 1, 2, 10."""
    top = tmp_path / "moves"
    for place, name in enumerate(("wave/10", "wave/2", "wave/1", "squat/1")):
        write_csv(top / f"{name}.csv", seed=place, frames=place + 2)
    return top


def notes_of(*paths: Path, **options: object) -> tuple[PackedSkeletons, list[str]]:
    notes: list[str] = []
    data = read(paths[0] if len(paths) == 1 else list(paths), say=notes.append, **options)  # type: ignore[arg-type]
    return data, [note.removeprefix("note: ") for note in notes]


class TestNames:
    def test_a_path_below_the_folder_in_natural_order(self, folder: Path) -> None:
        data, notes = notes_of(folder)
        assert data.names == ["squat/1", "wave/1", "wave/2", "wave/10"]
        assert data.clip_frames().tolist() == [5, 4, 3, 2]
        assert [note for note in notes if "joints" not in note] == []

    def test_several_files_are_named_below_what_they_share(self, folder: Path) -> None:
        data, _ = notes_of(folder / "wave" / "2.csv", folder / "squat" / "1.csv")
        assert data.names == ["wave/2", "squat/1"]
        data, _ = notes_of(folder / "wave" / "2.csv", folder / "wave" / "1.csv")
        assert data.names == ["2", "1"]
        data, _ = notes_of(folder / "squat", folder / "wave")
        assert data.names == ["squat/1", "wave/1", "wave/2", "wave/10"]

    def test_a_file_of_several_clips(self, folder: Path) -> None:
        write_csv(folder / "wave" / "more.csv", clips=("a", "b"))
        data, _ = notes_of(folder)
        assert data.names == ["squat/1", "wave/1", "wave/2", "wave/10", "wave/more/a", "wave/more/b"]
        assert [data.column_names["file"][code] for code in data.columns["file"].tolist()] == [
            "squat/1", "wave/1", "wave/2", "wave/10", "wave/more", "wave/more",
        ]  # fmt: skip

    def test_names_that_collide_are_made_distinct_and_said(self, folder: Path) -> None:
        (folder / "wave" / "1.tsv").write_text((folder / "wave" / "1.csv").read_text().replace(",", "\t"))
        data, notes = notes_of(folder)
        assert data.names == ["squat/1", "wave/1", "wave/1.tsv", "wave/2", "wave/10"]
        assert any("1 file had the names of other clips" in note for note in notes)

    def test_one_file_keeps_what_its_reader_calls_its_clips(self, folder: Path) -> None:
        assert read(folder / "wave" / "1.csv").names == ["1"]


def openpose(frame: int) -> str:
    """A frame of one person."""
    points = np.random.default_rng(0).uniform(100, 300, (25, 2)) + frame
    person = {"person_id": [-1], "pose_keypoints_2d": np.c_[points, np.full(25, 0.9)].ravel().tolist()}
    return json.dumps({"version": 1.3, "people": [person]})


class TestFoldersOfFrames:
    """A video may be a folder, or some files of the folder of its class."""

    @staticmethod
    def fill(top: Path, pattern: str, text: Callable[[int], str]) -> list[str]:
        for action in ("wave", "squat"):
            for video in range(2):
                for frame in range(3):
                    path = top / action / pattern.format(video=video, frame=frame)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text(frame))
        data = label_clips(read(top, say=lambda line: None), "folder", say=lambda line: None)
        assert data.clip_frames().tolist() == [3] * 4
        assert [data.label_names[code] for code in data.labels.tolist()] == ["squat", "squat", "wave", "wave"]
        return data.names

    @pytest.mark.parametrize(
        "pattern",
        [
            "v{video}/v{video}_{frame:012d}_keypoints.json",
            "v{video}_{frame:012d}_keypoints.json",
            "v{video}/json/{frame}_keypoints.json",
        ],
    )
    def test_openpose(self, tmp_path: Path, pattern: str) -> None:
        assert self.fill(tmp_path / "top", pattern, openpose) == [
            "squat/v0",
            "squat/v1",
            "wave/v0",
            "wave/v1",
        ]

    @pytest.mark.parametrize("pattern", ["v{video}/labels/v{video}_{frame}.txt", "v{video}_{frame}.txt"])
    def test_yolo(self, tmp_path: Path, pattern: str) -> None:
        def text(frame: int) -> str:
            points = np.random.default_rng(0).uniform(0.3, 0.6, (17, 2)) + frame / 100
            return "0 0.5 0.5 0.2 0.6 " + " ".join(f"{x:.4f} {y:.4f} 0.9" for x, y in points) + "\n"

        assert self.fill(tmp_path / "top", pattern, text) == ["squat/v0", "squat/v1", "wave/v0", "wave/v1"]

    def test_files_that_all_have_the_name_of_the_tool(self, tmp_path: Path) -> None:
        poses = [
            (f"{frame}.jpg", np.random.default_rng(frame).uniform(100, 200, (17, 2)), 1) for frame in range(3)
        ]
        for name in ("wave/v0", "wave/v1", "squat/v0"):
            (tmp_path / name).mkdir(parents=True)
            write.write_alphapose(tmp_path / name / "alphapose-results.json", poses)
        assert read(tmp_path).names == ["squat/v0", "wave/v0", "wave/v1"]

    def test_files_of_another_kind_beside_folders_of_frames(self, tmp_path: Path) -> None:
        names = get_layout("openpose25").joints
        for action in ("wave", "squat"):
            for frame in range(3):
                path = tmp_path / action / "v0" / f"{frame:012d}_keypoints.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(openpose(frame))
            rows = [
                f"{frame},{name},{place},{frame}" for frame in range(3) for place, name in enumerate(names)
            ]
            (tmp_path / action / "v1.csv").write_text("frame,joint,x,y\n" + "\n".join(rows))
        assert read(tmp_path).names == ["squat/v0", "squat/v1", "wave/v0", "wave/v1"]


class TestWhatIsPassedOver:
    def test_hidden_files_links_and_empty_folders(self, folder: Path) -> None:
        (folder / "__MACOSX").mkdir()
        (folder / "empty").mkdir()
        for name in (".hidden.csv", "__MACOSX/1.csv", "Thumbs.db", "wave/.DS_Store", "wave/._1.csv"):
            (folder / name).write_text("x")
        (folder / "wave" / "up").symlink_to(folder)
        assert notes_of(folder)[0].num_clips == 4
        (folder / "wave" / "again.csv").symlink_to(folder / "wave" / "1.csv")
        data, notes = notes_of(folder, folder / "wave" / "2.csv")
        assert data.num_clips == 4
        assert "2 files given or linked a second time, read once" in notes

    def test_hidden_folders_are_said(self, folder: Path) -> None:
        for name in (".kick", ".git", "wave/.old"):
            (folder / name).mkdir()
            (folder / name / "1.csv").write_text("x")
        data, notes = notes_of(folder)
        assert data.num_clips == 4
        assert "folders hidden by a leading dot, not read: .kick, wave/.old" in notes

    def test_what_no_reader_knows_and_damage_is_said(self, folder: Path) -> None:
        for name in ("a.mp4", "b.mp4"):
            (folder / "wave" / name).write_text("x")
        (folder / "squat" / "bad.json").write_text('{"a": [}')
        data, notes = notes_of(folder)
        assert data.num_clips == 4
        assert "2 files that no reader knows, not read: wave/a.mp4, wave/b.mp4" in notes
        place = str(folder / "squat" / "bad.json")
        assert any(
            note.startswith(f"damaged, left out: 1 file: {place}, line 1: no JSON, or truncated")
            for note in notes
        )
        assert list(data.dropped) == [place]

    def test_out_is_not_read(self, folder: Path) -> None:
        out = folder / "out.safetensors"
        for _ in range(2):
            assert import_file(folder, out)["clips"] == 4

    def test_packed_files_beside_others_are_not_read_again(self, folder: Path) -> None:
        import_file(folder, folder / "old.safetensors")
        data, notes = notes_of(folder)
        assert data.num_clips == 4
        assert any(note.startswith("old.safetensors: packed data beside") for note in notes)
        assert notes_of(folder / "old.safetensors", folder / "wave" / "1.csv")[0].num_clips == 5

    def test_notes_are_told_once(self, tmp_path: Path) -> None:
        for name in "ab":
            poses = [
                (f"{frame}.jpg", np.random.default_rng(frame).normal(size=(17, 2)), None)
                for frame in range(3)
            ]
            write.write_alphapose(tmp_path / f"{name}.json", poses)
        _, notes = notes_of(tmp_path)
        assert len(notes) == len({re.sub(r"\d", "", note) for note in notes})
        assert all("in 2 files, the first is a)" in note for note in notes)

    def test_names_that_are_numbers_do_not_part_notes(self, tmp_path: Path) -> None:
        joints = get_layout("ntu25").joints
        for name in ("1", "2", "5"):
            row = ",".join(str(place) for place in range(75))
            head = ",".join(f"{joint}_{axis}" for joint in joints for axis in "xyz")
            (tmp_path / f"{name}.csv").write_text(f"frame,{head}\n0,{row}\n1,{row}\n")
        _, notes = notes_of(tmp_path)
        assert [note for note in notes if "ntu25" in note] == [
            "joints matched by name to layout ntu25 (so in 3 files, the first is 1)"
        ]


class TestErrors:
    def test_nothing_readable(self, tmp_path: Path) -> None:
        with pytest.raises(
            ValueError, match=r"is a folder; it holds no file; expected \.npz, .*fastamr prepare KIND"
        ):
            read(tmp_path)
        for name in ("a.mp4", "b.mp4", "c.avi"):
            (tmp_path / name).write_text("x")
        with pytest.raises(ValueError, match=r"no reader knows its 3 files \(2 \.mp4, 1 \.avi\): a\.mp4, b"):
            read(tmp_path)
        (tmp_path / "d.json").write_text("[")
        with pytest.raises(
            ValueError, match=r"none of its 4 files .* first damaged one is .*d\.json, line 1: no JSON"
        ):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"no file .*no to import"):
            read([tmp_path, tmp_path / "no"])
        with pytest.raises(ValueError, match="empty list"):
            read([])

    def test_files_of_two_skeletons(self, folder: Path) -> None:
        write_csv(folder / "wave" / "3.csv", layout="ntu25")
        with pytest.raises(
            ValueError, match=r"squat/1\.csv has layout 'kinect20' in 3 .*wave/3\.csv has 'ntu25'.*--layout"
        ):
            read(folder)

    def test_an_option_that_no_reader_takes(self, folder: Path) -> None:
        assert read(folder, min_confidence=0.5).num_clips == 4
        import_file(folder, folder / "old.safetensors")
        with pytest.raises(
            ValueError, match=r"min_confidence is 0\.5, but it is read from .*; omit --min-confidence"
        ):
            read([folder / "old.safetensors"] * 2, min_confidence=0.5)


def test_zip_archives(folder: Path, tmp_path: Path) -> None:
    """An archive is read like a folder, alone and within one."""
    (folder / "wave" / "bad.json").write_text("[")
    archive = tmp_path / "set" / "moves.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*.*s*")):
            file.write(path, path.relative_to(folder))
    data, notes = notes_of(archive)
    assert data.names == ["squat/1", "wave/1", "wave/2", "wave/10"]
    assert f"{archive}/wave/bad.json, line 1" in "\n".join(notes)
    assert read(archive.parent).names == ["moves/squat/1", "moves/wave/1", "moves/wave/2", "moves/wave/10"]
    assert list(data.dropped) == [f"{archive}/wave/bad.json"]


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "out.safetensors"
    assert main(["import", str(folder), str(out), "--fps", "25"]) == 0
    assert "clips               4" in capsys.readouterr().out
    assert main(["import", *map(str, sorted(folder.glob("wave/*.csv"))), str(out)]) == 0
    assert PackedSkeletons.load(out).names == ["1", "10", "2"]
    assert main(["import", str(folder)]) == 2
