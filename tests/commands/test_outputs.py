"""An output that is an input, under whatever name, is refused before anything is read, and stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastamr.cli import main
from fastamr.data import load
from fastamr.files import check_writable, replaced

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "data.safetensors"
    load("synthetic").select([0, 1, 2, 3]).save(path)
    return path


def link_to(path: Path, how: str) -> Path:
    """Return another name of a file: itself, a roundabout path, a hard link or a symbolic one."""
    other = path.with_name(f"other{path.suffix}")
    if how == "same":
        return path
    if how == "roundabout":
        return path.parent / ".." / path.parent.name / path.name
    if how == "hard":
        os.link(path, other)
    else:
        other.symlink_to(path)
    return other


@pytest.mark.parametrize("how", ["same", "roundabout", "hard", "symbolic"])
@pytest.mark.parametrize(
    "words",
    [
        ["import", "DATA", "OUT"],
        ["convert", "DATA", "OUT", "--preprocess", "center"],
        ["check", "DATA", "--html", "OUT"],
        ["check", "DATA", "--json", "OUT"],
        ["predict", "DATA", "--model", "none", "--out", "OUT"],
        ["table", "DATA", "--out", "OUT"],
    ],
    ids=" ".join,
)
def test_an_output_that_is_the_input_is_refused(
    packed: Path, capsys: pytest.CaptureFixture[str], words: list[str], how: str
) -> None:
    before = packed.read_bytes()
    out = link_to(packed, how)
    names = {"DATA": str(packed), "OUT": str(out)}
    assert main([names.get(word, word) for word in words]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert str(out) in shown
    assert "is one of the files that are read" in shown
    assert packed.read_bytes() == before


def test_a_file_that_is_no_packed_data_is_not_replaced(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``fastamr import *.csv`` names no output: the last file would be taken for it."""
    mine = packed.with_name("b.csv")
    mine.write_text("precious")
    assert main(["import", str(packed), str(mine)]) == 1
    assert (
        "b.csv' exists and holds something else than packed data: name another file"
        in capsys.readouterr().err
    )
    assert mine.read_text() == "precious"


def test_a_packed_file_is_made_anew(packed: Path) -> None:
    out = packed.with_name("out.safetensors")
    for _ in range(2):
        assert main(["import", str(packed), str(out)]) == 0


def test_files_in_a_folder_that_is_read_are_inputs(tmp_path: Path) -> None:
    clips = tmp_path / "clips" / "wave"
    clips.mkdir(parents=True)
    (clips / "a.csv").write_text("x")
    (clips / "nothing").symlink_to(tmp_path / "gone")
    outside = tmp_path / "outside.csv"
    os.link(clips / "a.csv", outside)
    for out in (clips / "a.csv", outside):
        with pytest.raises(FileExistsError, match=r"is one of the files that are read.*name another file"):
            check_writable(out, tmp_path / "clips")
    check_writable(clips / "new.csv", tmp_path / "clips", None, tmp_path / "gone")


def test_a_write_that_fails_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match=r"cannot write: No such file or directory: '.*gone/a.json'"),
        replaced(tmp_path / "gone" / "a.json"),
    ):
        pass
    with (
        pytest.raises(OSError, match=r"cannot write: No space left on device: '.*a.json'"),
        replaced(tmp_path / "a.json"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX limits")
def test_a_full_disk_is_one_line_and_leaves_the_file(packed: Path) -> None:
    """The largest size of a file stands for the disk's end, also for the files that safetensors writes."""
    resource = pytest.importorskip("resource")
    out = packed.with_name("out.safetensors")
    out.write_bytes(packed.read_bytes())
    code = (
        "import resource, sys; from fastamr.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.exit(main(sys.argv[1:]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "import", str(packed), str(out), "--preprocess", "center"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert resource is not None
    assert found.returncode == 1, found.stderr
    assert found.stderr.count("\n") == 1
    assert "cannot save" in found.stderr
    assert "out.safetensors" in found.stderr
    assert out.read_bytes() == packed.read_bytes()
    assert sorted(path.name for path in packed.parent.iterdir()) == ["data.safetensors", "out.safetensors"]
