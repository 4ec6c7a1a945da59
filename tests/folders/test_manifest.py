"""Only what the list names is ever removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastamr.folders import MANIFEST, note_written, remove_written, written


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_each_file_is_noted_once_and_removed(tmp_path: Path) -> None:
    for name in ("a.json", "deep/er/b.json", "deep/mine.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    note_written(tmp_path, "a.json", tmp_path / "deep" / "er" / "b.json", "never.json")
    note_written(tmp_path, "a.json")
    assert written(tmp_path) == ["a.json", "deep/er/b.json", "never.json"]
    remove_written(tmp_path)
    assert files(tmp_path) == ["deep/mine.txt"]
    assert not (tmp_path / "deep" / "er").exists()


def test_lines_that_are_damaged_or_lead_out_are_passed_over(tmp_path: Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "precious").write_text("x")
    (folder / "link").symlink_to(outside)
    lines = [
        '{"wrote": "../outside/precious"}',
        f'{{"wrote": "{outside}/precious"}}',
        '{"wrote": "link/precious"}',
    ]
    lines += ['{"wrote": 3}', "[]", "3", "{", '{"wrote": ""}', '{"wrote": "a\\u0000b"}', "[" * 100_000]
    (folder / MANIFEST).write_bytes("\n".join(lines).encode() + b'\n\xff\xfe\n{"wrote": "a.json"}\n')
    assert written(folder) == ["a.json"]
    (folder / "a.json").write_text("x")
    remove_written(folder)
    assert (outside / "precious").read_text() == "x"
    assert [path.name for path in folder.iterdir()] == ["link"]


def test_a_line_that_was_cut_short_spoils_none_after_it(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"wrote": "a')
    note_written(tmp_path, "b.json")
    assert written(tmp_path) == ["b.json"]


def test_a_folder_without_a_list(tmp_path: Path) -> None:
    assert written(tmp_path) == []
    remove_written(tmp_path)
    with pytest.raises(FileNotFoundError):
        note_written(tmp_path / "gone", "a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_place_of_the_list_is_refused(tmp_path: Path) -> None:
    """Opening it would wait for a reader for ever."""
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(ValueError, match="is a pipe"):
        note_written(tmp_path, "a.json")
    assert written(tmp_path) == []
