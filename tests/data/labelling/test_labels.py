"""Labels from folders and tables: names in all spellings, what does not match, persons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr.cli import main
from fastamr.data import PackedSkeletons, label_clips

NAMES = ("wave/0001", "wave/0002", "squat/0001", "squat/0003")


def make(names: tuple[str, ...] = NAMES, people: int = 1, **fields: object) -> PackedSkeletons:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(4, people, 20, 3)) for _ in names]
    return PackedSkeletons.from_clips(clips, layout="kinect20", names=list(names), **fields)  # type: ignore[arg-type]


def labels_of(data: PackedSkeletons) -> list[str | None]:
    return [data.label_names[code] if code >= 0 else None for code in data.labels.tolist()]


def by_table(tmp_path: Path, text: str, data: PackedSkeletons | None = None) -> tuple[PackedSkeletons, str]:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    notes: list[str] = []
    found = label_clips(make() if data is None else data, tmp_path / "labels.csv", say=notes.append)
    return found, "\n".join(notes)


class TestFolders:
    def test_the_folder_above(self) -> None:
        notes: list[str] = []
        data = label_clips(make(), "folder", say=notes.append)
        assert labels_of(data) == ["wave", "wave", "squat", "squat"]
        assert data.label_names == ("squat", "wave")
        assert notes == ["note: labels by folder: 4 of 4 clips in 2 classes: squat, wave"]

    def test_folders_within_folders(self) -> None:
        names = ("s1/wave/1", "s2/squat/1", "s2/wave/1", "lone")
        notes: list[str] = []
        assert labels_of(label_clips(make(names), "folder", say=notes.append)) == [
            "wave",
            "squat",
            "wave",
            None,
        ]
        assert "those above it are none: s1, s2; --labels folder:1" in notes[0]
        assert "1 clips lie in no folder and have no label: lone" in notes[1]
        assert labels_of(label_clips(make(names), "folder:1", say=notes.append)) == ["s1", "s2", "s2", None]

    def test_the_file_of_several_clips(self) -> None:
        data = make(("wave/a/1", "wave/a/2", "squat/b"), columns={"file": ["wave/a", "wave/a", "squat/b"]})
        assert labels_of(label_clips(data, "folder")) == ["wave", "wave", "squat"]

    def test_numbers_are_names_of_folders(self) -> None:
        assert label_clips(make(("10/a", "2/a")), "folder").label_names == ("10", "2")

    @pytest.mark.parametrize(
        ("names", "train"),
        [
            (("train/wave/1", "Test/wave/1", "train/squat/1", "Test/squat/1"), [1, 0, 1, 0]),
            (("wave/training/1", "wave/val/1", "squat/training/1", "squat/val/1"), [1, 0, 1, 0]),
            (
                ("d/train/s1/wave/1", "d/test/s2/wave/1", "d/train/s1/squat/1", "d/test/s2/squat/1"),
                [1, 0, 1, 0],
            ),
        ],
    )
    def test_folders_of_halves_are_a_split(self, names: tuple[str, ...], train: list[int]) -> None:
        notes: list[str] = []
        data = label_clips(make(names), "folder", say=notes.append)
        assert labels_of(data) == ["wave", "wave", "squat", "squat"]
        assert data.split("official").train.int().tolist() == train
        assert data.split("official").test.int().tolist() == [1 - value for value in train]
        assert "are halves of a split, not classes" in notes[0]
        assert notes[1] == "note: split 'official': 2 clips train, 2 test"

    def test_halves_without_classes(self) -> None:
        with pytest.raises(ValueError, match=r"the folders test, train are halves of a split.*--labels FILE"):
            label_clips(make(("train/1", "train/2", "test/1", "test/2")), "folder")

    def test_no_folder(self) -> None:
        with pytest.raises(
            ValueError, match=r"no clip lies in a folder \(the first is 'a'\).*moves/wave/0001\.csv"
        ):
            label_clips(make(("a", "b")), "folder")


class TestTables:
    @pytest.mark.parametrize(
        "text",
        [
            "name,label\nwave/0001,wave\nwave/0002,wave\nsquat/0001,squat\nsquat/0003,squat\n",
            "label;file\nwave;wave/0001.csv\nwave;wave/0002.json\nsquat;squat/0001.csv\nsquat;0003.csv\n",
            "\ufeffClip Name\tAction\n/me/wave/0001.mp4\twave\n.\\wave\\0002\twave\nm/squat/0001\tsquat\n0003\tsquat\n",
            "id,video_name,class_id,class_name\n1,wave/0001,3,wave\n2,wave/0002,3,wave\n3,squat/0001,4,squat\n"
            "4,squat/0003,4,squat\n",
            "wave/0001.mp4 wave\nwave/0002.mp4 wave\nsquat/0001.mp4 squat\nsquat/0003.mp4 squat\n",
            "Wave/0001,wave\n",
        ],
        ids=("plain", "endings", "paths", "spellings", "no header", "case"),
    )  # fmt: skip
    def test_spellings(self, tmp_path: Path, text: str) -> None:
        if text.startswith("Wave"):
            text = "file,label\n" + text + "WAVE/0002,wave\nsquat/0001,squat\n0003,squat\n"
        data, notes = by_table(tmp_path, text)
        assert labels_of(data) == ["wave", "wave", "squat", "squat"]
        assert "labels.csv: 4 of 4 clips in 2 classes: squat, wave" in notes

    def test_what_does_not_match_is_said(self, tmp_path: Path) -> None:
        data, notes = by_table(tmp_path, "name,label\nwave/0001,wave\nno,wave\nsquat/0001,\n")
        assert labels_of(data) == ["wave", None, None, None]
        assert "1 of 3 rows name no clip: no" in notes
        assert "2 of 4 clips have no row and no label: wave/0002, squat/0003" in notes
        with pytest.raises(
            ValueError, match=r"none of its 2 rows names a clip: the first is 'x', .* wave/0001"
        ):
            by_table(tmp_path, "name,label\nx,wave\ny,wave\n")

    def test_columns_and_a_split(self, tmp_path: Path) -> None:
        text = "name,label,participant,Set,camera\nwave/0001,a,7,Train,c2\nwave/0002,a,7,TEST,c1\n"
        text += "squat/0001,b,9,val,c1\n"
        data, notes = by_table(tmp_path, text)
        assert data.columns["subject"].tolist() == [7, 7, 9, -1]
        assert data.column_names == {"camera": ("c1", "c2")}
        assert data.columns["camera"].tolist() == [1, 0, 0, -1]
        split = data.split("official")
        assert (split.train.tolist(), split.test.tolist()) == (
            [True] + [False] * 3,
            [False, True, False, False],
        )
        assert "split 'official': 1 clips train, 1 test, 2 in neither half" in notes

    def test_numbers_are_indices(self, tmp_path: Path) -> None:
        text = "name,label\nwave/0001,1\nwave/0002,1\nsquat/0001,0\nsquat/0003,-1\n"
        data, _ = by_table(tmp_path, text)
        assert data.labels.tolist() == [1, 1, 0, -1]
        data, notes = by_table(tmp_path, text, make(labels=[0, 0, 0, 0], label_names=["a", "b"]))
        assert data.label_names == ("a", "b")
        assert "4 clips had labels of their own, which --labels replaces" in notes

    def test_a_file_stands_for_its_clips(self, tmp_path: Path) -> None:
        data = make(("m/a/1", "m/a/2", "m/b"), columns={"file": ["m/a", "m/a", "m/b"]})
        assert labels_of(by_table(tmp_path, "file,label\na.csv,x\nb.csv,y\n", data)[0]) == ["x", "x", "y"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "empty, expected a line with the columns name, label"),
            ("a,b\n1,2\n", "line 1: columns a, b; expected name and label"),
            ("name,label\n", "no row after the line of column names"),
            ("name,label\nwave/0001\n", "line 2: 1 cells, expected at least name and label"),
            ("name,label\n0001,x\n", r"line 2: name '0001' fits several clips: 'squat/0001', 'wave/0001'"),
            (
                "name,label\nwave/0001,x\nwave/0001.csv,y\n",
                "line 3: label 'y' of 'wave/0001.csv', but line 2 says 'x'",
            ),
            ("name,label,split\nwave/0001,x,left\n", "line 2: split is 'left', expected train, test or val"),
            ("name,label,split\nwave/0001,x,train\n", "1 clips for training and 0 for the test"),
            ("name,label\nwave/0001,\n", "no clip gets a label"),
        ],
    )
    def test_errors(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            by_table(tmp_path, text)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="--labels takes the word folder, or a file"):
            label_clips(make(), tmp_path / "no.csv")


class TestPersons:
    def test_persons_become_clips(self, tmp_path: Path) -> None:
        text = "clip,person,label\na,1,wave\na,0,squat\nb,1,wave\nb,5,wave\n"
        data, notes = by_table(tmp_path, text, make(("a", "b"), people=2))
        assert data.names == ["a#0", "a#1", "b#0", "b#1"]
        assert labels_of(data) == ["squat", "wave", None, "wave"]
        assert "1 rows name a person that the clip does not show: '5' of b" in notes
        assert "persons become clips of their own: 2 clips of 4 persons" in notes
        with pytest.raises(ValueError, match=r"none of its persons is in the data: the first is '7' of a"):
            by_table(tmp_path, "clip,person,label\na,7,wave\n", make(("a", "b"), people=2))

    def test_a_person_who_performs_is_a_subject(self, tmp_path: Path) -> None:
        text = "clip,person,label\na,anna,x\nb,ben,y\n"
        data, notes = by_table(tmp_path, text, make(("a", "b")))
        assert data.names == ["a", "b"]
        assert data.column_names["subject"] == ("anna", "ben")
        assert "the column person is taken as subject" in notes


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    make().save(path)
    labelled = tmp_path / "labelled.safetensors"
    assert main(["convert", str(path), str(labelled), "--labels", "folder"]) == 0
    data = PackedSkeletons.load(labelled)
    assert labels_of(data) == ["wave", "wave", "squat", "squat"]
    assert torch.equal(data.coords, make().coords)
    for name in ("wave", "squat"):
        (tmp_path / "moves" / name).mkdir(parents=True)
        for number in (1, 2):
            lines = [f"{frame},{joint},{number},{joint},0" for frame in range(2) for joint in range(20)]
            text = "frame,joint,x,y,z\n" + "\n".join(lines)
            (tmp_path / "moves" / name / f"{number}.csv").write_text(text)
    (tmp_path / "moves" / "labels.csv").write_text("name,label\nwave/1,hello\nsquat/2,down\n")
    out = tmp_path / "moves.safetensors"
    assert (
        main(["import", str(tmp_path / "moves"), str(out), "--labels", "folder", "--layout", "kinect20"]) == 0
    )
    assert PackedSkeletons.load(out).label_names == ("squat", "wave")
    words = ["--labels", str(tmp_path / "moves" / "labels.csv"), "--layout", "kinect20", "--fps", "30"]
    assert main(["import", str(tmp_path / "moves"), str(out), *words]) == 0
    data = PackedSkeletons.load(out)
    assert labels_of(data) == [None, "down", "hello", None]
    assert data.fps.tolist() == [30] * 4
    assert data.dropped == {}, "the table of labels is no clip"
    capsys.readouterr()
    assert main(["convert", str(path), str(labelled), "--labels", str(tmp_path / "no.csv")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
