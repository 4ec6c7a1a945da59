"""A reader that has seen enough (``| head``) ends any command without a complaint, whatever is buffered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_cli import ROOT


def first_line(words: list[str], unbuffered: bool) -> tuple[int, str]:
    """Return the exit code and standard error of a command whose output is closed before it is written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, *["-u"] * unbuffered, "-m", "fastamr", *words]
    run = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(writing)
    return run.returncode, run.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("words", [["--help"], ["info"], ["convert", "--help-all"]])
def test_closed_output(words: list[str], unbuffered: bool) -> None:
    assert first_line(words, unbuffered) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_what_was_written_stays_and_errors_are_told(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("frame,joint,x,y\n" + "".join(f"0,{joint},{joint + 1},2\n" for joint in range(17)))
    code, told = first_line(["import", str(table), str(tmp_path / "a.safetensors")], False)
    assert (code, (tmp_path / "a.safetensors").exists()) == (0, True)
    assert all(line.startswith("note: ") for line in told.splitlines())
    code, told = first_line(["import", str(tmp_path / "none.csv"), str(tmp_path / "b.safetensors")], False)
    assert code == 1
    assert "error: " in told
