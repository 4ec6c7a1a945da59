"""Windows and macOS, as far as Linux can play them: the reference path runs, and files are written with care.

``other_system.py`` says what is played: the standard library without what these systems lack, their names, no compiler,
no Triton, no ``/proc``; for Windows besides text files with CR LF in another encoding, and files in use that can be
neither replaced nor removed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .environments import ROOT, call

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.slow


def on(system: str, script: Path, *words: str, cwd: Path, status: int = 0) -> str:
    """Run a script as if on another system; return both outputs as one."""
    variables = {"PYTHONPATH": str(ROOT), "FASTAMR_CACHE": str(cwd / "cache")}
    program = (sys.executable, HERE / "other_system.py", system, script)
    done = call(*program, *words, cwd=cwd, status=status, **variables)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("system", "parts"), [("win32", ()), ("darwin", ("modules", "info", "motion", "training"))]
)
def test_a_day(system: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    said = on(system, HERE / "a_day.py", str(tmp_path), *parts, cwd=tmp_path)
    assert f"  cpu: the cpu extension is missing: it is built on Linux only (this is {system})" in said
    assert "Triton is not installed: pip install 'fastamr[triton]'" in said
    assert not (tmp_path / "cache").exists()
    assert "fastamr pretrain" in said


FILES = """
import os
import sys
from pathlib import Path

os.chdir(sys.argv[1])
from fastamr import cli
from fastamr.data import PackedSkeletons, synthetic_actions
from fastamr.data.packed import file
from fastamr.folders.lock import FolderLock
from fastamr.native import cache

assert os.name == "nt" and not hasattr(os, "fork") and not hasattr(os, "getuid"), "Windows is played"
data = synthetic_actions(12, seed=1)
data.save("d.safetensors")
file.COPIED = 0  # so that the small file stays mapped, as a large one does
mapped = PackedSkeletons.load("d.safetensors")
before = Path("d.safetensors").read_bytes()
assert cli.main(["split", "d.safetensors", "--name", "other"]) == 1
assert Path("d.safetensors").read_bytes() == before
assert cli.main(["split", "d.safetensors", "--name", "other", "--out", "e.safetensors"]) == 0
assert sorted(path.name for path in Path().iterdir()) == ["d.safetensors", "e.safetensors"]
with FolderLock("new", "a test"):
    assert Path("new").is_dir()
assert (cache.readable(), cache.files(), cache.clear()) == ([], [], 0)
assert cli.main(["cache", "--clear"]) == 0
"""


def test_a_file_that_is_mapped_is_not_replaced_on_windows(tmp_path: Path) -> None:
    (tmp_path / "files.py").write_text(FILES, encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    said = on("win32", tmp_path / "files.py", str(folder), cwd=tmp_path)
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert "d.safetensors" in line
    assert (
        "Windows replaces no file that is open or mapped: close what reads it, or name another file" in line
    )


PLAYED = """
import os, sys, platform, signal
try:
    import fcntl
except ImportError:
    print("no fcntl")
print(sys.platform, platform.system(), hasattr(os, "sched_getaffinity"), hasattr(signal, "SIGUSR1"))
import subprocess
print(subprocess.run(["true"]).returncode)
open("text", "w").write("a\\n")
print(open("text", "rb").read())
try:
    open("/proc/self/status")
except FileNotFoundError:
    print("no /proc")
"""


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        ("win32", ["no fcntl", "win32 Windows False False", "0", r"b'a\r\n'", "no /proc"]),
        ("darwin", ["darwin Darwin False True", "0", r"b'a\n'", "no /proc"]),
    ],
)
def test_what_is_played(system: str, lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "played.py").write_text(PLAYED, encoding="utf-8")
    assert on(system, tmp_path / "played.py", cwd=tmp_path).splitlines() == lines
