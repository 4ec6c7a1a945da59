"""Which folder and which files the extension is loaded from."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastamr import cli, info, native
from fastamr.native import build, cache, load

COMPILER = (
    "#!/bin/sh\n"
    'if [ "$1" = --version ]; then echo fake 1.0; exit 0; fi\n'
    'echo ran >> "$LOG"\n'
    'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo library > "$2"; shift; done\n'
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache to be, a temporary folder of its own, a compiler that writes its runs down."""
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER, encoding="utf-8")
    compiler.chmod(0o755)
    (tmp_path / "tmp").mkdir(mode=0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name, value in (("CXX", compiler), ("LOG", tmp_path / "log"), ("FASTAMR_CACHE", tmp_path / "cache")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("FASTAMR_BUILD", raising=False)
    monkeypatch.setattr(load, "_reasons", {})
    cache._own_folder.cache_clear()
    cache._say.cache_clear()
    yield tmp_path / "cache"
    cache._own_folder.cache_clear()


def runs(folder: Path) -> int:
    log = folder.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_the_folder_is_the_users_alone(place: Path) -> None:
    library = load.built_library("cpu")
    assert library.parent == place
    assert place.stat().st_mode & 0o777 == 0o700
    assert library.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_could_write_is_closed(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    assert load.built_library("cpu").parent == place
    assert place.stat().st_mode & 0o777 == 0o700


def somebody_elses(place: Path) -> None:
    place.mkdir()
    os.chown(place, 45678, 45678)


def a_link(place: Path) -> None:
    (place.parent / "elsewhere").mkdir()
    place.symlink_to(place.parent / "elsewhere")


def a_file(place: Path) -> None:
    place.write_text("", encoding="utf-8")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("made", [somebody_elses, a_link, a_file])
def test_what_may_be_somebody_elses_is_not_used(
    place: Path, made: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    made(place)
    library = load.built_library("cpu")
    assert library.parent == place.parent / "tmp" / f"fastamr-{os.getuid()}"
    assert f"fastamr: does not use the cache {place}: " in capsys.readouterr().err
    assert load.built_library("cpu") == library


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_library_of_somebody_else_is_not_loaded(place: Path) -> None:
    library = load.built_library("cpu")
    before = runs(place)
    os.chown(library, 45678, 45678)
    assert not cache.is_sound(library)
    assert load.built_library("cpu") == library
    assert library.stat().st_uid == os.geteuid()
    assert runs(place) > before, "it was built anew"


def test_without_a_place_a_folder_of_the_process_is_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAMR_CACHE", "/proc/fastamr")  # nobody can make it, root neither
    (place.parent / "tmp" / f"fastamr-{os.getuid()}").write_text("in the way")
    library = load.built_library("cpu")
    assert library.parent.parent == place.parent / "tmp"
    assert library.parent.stat().st_mode & 0o777 == 0o700
    before = runs(place)
    assert load.built_library("cpu") == library
    assert runs(place) == before


def test_a_cache_that_only_can_be_read_serves(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = load.built_library("cpu")
    monkeypatch.setattr(cache, "_prepare", lambda folder: "read-only")
    assert load.built_library("cpu") == library


@pytest.mark.parametrize("damage", ["truncated", "emptied", "changed", "no note", "foreign note"])
def test_a_damaged_library_is_built_anew(place: Path, damage: str) -> None:
    library = load.built_library("cpu")
    note = library.with_suffix(".json")
    if damage == "no note":
        note.unlink()
    elif damage == "foreign note":
        note.write_text("[1]")
    else:
        library.write_text({"truncated": "lib", "emptied": "", "changed": "librarx\n"}[damage])
    before = runs(place)
    assert load.built_library("cpu") == library
    assert library.read_text() == "library\n"
    assert runs(place) > before


def test_a_library_of_another_version_is_left_alone(place: Path) -> None:
    place.mkdir()
    (place / "cpu-0123.so").write_text("older")
    assert load.built_library("cpu").name != "cpu-0123.so"


def test_without_a_compiler_what_was_built_before_serves(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = load.built_library("cpu")
    monkeypatch.setenv("CXX", "nonesuch")
    assert load.built_library("cpu") == library
    monkeypatch.setenv("CXX", str(other := place.parent / "other"))
    other.write_text(COMPILER.replace("1.0", "2.0").replace("echo library", "echo of more instructions"))
    other.chmod(0o755)
    larger = load.built_library("cpu")
    assert larger != library
    monkeypatch.setenv("CXX", "nonesuch")
    assert load.built_library("cpu") == larger
    monkeypatch.setattr(build, "sources_fingerprint", lambda device: "other")
    with pytest.raises(build.BuildError, match="no compiler 'nonesuch'"):
        load.built_library("cpu")


def test_a_failed_build_is_tried_again_after_a_day_or_a_clearing(place: Path) -> None:
    compiler = Path(os.environ["CXX"])
    works = compiler.read_text(encoding="utf-8")
    compiler.write_text(works.replace("echo ran", "exit 1; echo ran"), encoding="utf-8")
    with pytest.raises(build.BuildError, match="compiler failed"):
        load.built_library("cpu")
    compiler.write_text(works, encoding="utf-8")
    with pytest.raises(build.BuildError, match="try again with: fastamr cache --clear"):
        load.built_library("cpu")
    (failure,) = place.glob("*.failed")
    old = time.time() - 2 * 24 * 3600
    os.utime(failure, (old, old))
    assert load.built_library("cpu").is_file()


def test_the_command_names_and_empties_the_cache(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load.built_library("cpu")
    (place / "mine.txt").write_text("not the library's")
    (place / ".build-left").mkdir()
    assert cli.main(["cache"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(place)
    assert f"cache: {place} (" in info.report()
    assert cli.main(["cache", "--clear"]) == 0
    assert "deleted: 0.0 MiB" in capsys.readouterr().out
    assert [path.name for path in place.iterdir()] == ["mine.txt"]
    (place / "mine.txt").unlink()
    load.built_library("cpu")
    assert cli.main(["cache", "--clear"]) == 0
    assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_without_a_home_nothing_is_loaded_from_a_folder_that_was_there(tmp_path: Path) -> None:
    """As a user without a home, to whom somebody has given a folder in the temporary one."""
    user, root = 45678, Path(__file__).resolve().parents[2]
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    for folder in (shared, *shared.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    taken = shared / f"fastamr-{user}"
    taken.mkdir()
    taken.chmod(0o777)
    code = (
        "import os\nfrom fastamr.native import cache\n"
        f"os.setgid({user}); os.setuid({user})\n"
        "print(cache.cache_folder()); print(cache.readable()); print(cache.writable())\n"
    )
    unset = ("HOME", "XDG_CACHE_HOME", "FASTAMR_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "TMPDIR": str(shared), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    folder, readable, writable = run.stdout.splitlines()
    assert folder == str(taken)
    assert readable == "[]"
    assert Path(writable).parent == shared
    assert Path(writable) != taken
    assert f"does not use the cache {taken}: others may write it" in run.stderr


def test_the_extension_that_runs_here_lies_in_a_private_folder() -> None:
    if native.why_not("cpu") is None:
        assert cache.why_not_private(Path(native.status("cpu"))) is None
