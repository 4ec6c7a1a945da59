"""One writer in a folder, and no lock after its end, however that comes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fastamr.folders.lock as module
from fastamr.folders import FolderLock

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(module.fcntl is None, reason="the system has no flock")


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with FolderLock(folder, "fastamr pretrain"):
        with (
            pytest.raises(
                BlockingIOError,
                match=rf"in use by fastamr pretrain \(process {os.getpid()} on .*name another",
            ),
            FolderLock(folder, "fastamr finetune"),
        ):
            pass
        with pytest.raises(BlockingIOError), FolderLock(folder, "fastamr evaluate", shared=True):
            pass
    assert list(folder.iterdir()) == []
    with FolderLock(folder, "fastamr finetune"):
        pass


def test_evaluations_share_a_folder_and_keep_runs_out(tmp_path: Path) -> None:
    with FolderLock(tmp_path, "one", shared=True):
        with FolderLock(tmp_path, "two", shared=True):
            pass
        with pytest.raises(BlockingIOError), FolderLock(tmp_path, "run"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from fastamr.folders import FolderLock\n"
        "with FolderLock(sys.argv[1], 'fastamr pretrain'):\n    print('locked', flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (killed.returncode, killed.stdout) == (-9, "locked\n")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with FolderLock(tmp_path, "fastamr pretrain"):
        pass


def test_a_file_that_its_last_user_removes_meanwhile_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = module.fcntl.flock, []

    def removed(handle: int, how: int) -> None:
        flock(handle, how)
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(handle)

    monkeypatch.setattr(module.fcntl, "flock", removed)
    with FolderLock(tmp_path, "a"):
        assert len(calls) == 2
        with pytest.raises(BlockingIOError), FolderLock(tmp_path, "b"):
            pass


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module, "fcntl", SimpleNamespace(flock=none, LOCK_EX=2, LOCK_SH=1, LOCK_NB=4))
    with FolderLock(tmp_path, "a"):
        pass
    assert "no lock on" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="cannot write into the folder"), FolderLock(tmp_path, "a"):
        pass
