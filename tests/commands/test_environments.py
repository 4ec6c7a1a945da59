"""Commands where something of the surroundings is missing or odd: they work, or end with one line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

from fastamr import cli, progress
from fastamr.data import synthetic_actions
from fastamr.files import temporary_folder
from fastamr.native import cache, load

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="descriptors, masks and names of POSIX")
# Runs commands one after the other, and writes down exit codes and what was said on standard error.
DRIVER = """
import json, os, sys
from fastamr import cli
cli._open_closed_streams()
os.umask(0o077)
for words in json.loads(os.environ["WORDS"]):
    with open(os.environ["TOLD"] + ".err", "w+b") as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        code = cli.main([os.fsdecode(word.encode("utf-8", "surrogateescape")) for word in words])
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        file.seek(0)
        told = file.read().decode("utf-8", "replace")
    with open(os.environ["TOLD"], "a", encoding="utf-8") as file:
        file.write(json.dumps([words[0], code, told]) + "\\n")
"""
SIZES = {
    "frames": 8,
    "width": 16,
    "depth": 1,
    "heads": 1,
    "decoder-width": 16,
    "decoder-depth": 1,
    "decoder-heads": 1,
}
PRETRAIN = ["pretrain", "--model", "mamp", "--min-frames", "8", "--updates", "2", "--warmup-epochs", "0"]
PRETRAIN += ["--batch-size", "4", *(f"--model.{name}={value}" for name, value in SIZES.items())]
FINETUNE = ["--recipe.epochs=1", "--recipe.min-frames=8", "--recipe.hidden=0"]


def commands(folder: str) -> list[list[str]]:
    data, run, classifier = (f"{folder}/{name}" for name in ("data.safetensors", "run", "classifier"))
    return [
        ["info"],
        ["cache"],
        ["layouts"],
        ["import", f"{folder}/table.csv", data],
        ["check", data, "--html", f"{folder}/page.html", "--json", f"{folder}/report.json"],
        ["convert", data, f"{folder}/converted.safetensors", "--preprocess", "center"],
        ["split", data, "--test", "0.4", "--name", "official"],
        ["show", data, "--out", f"{folder}/clip.gif"],
        [*PRETRAIN, "--data", data, "--out", run],
        ["evaluate", "--checkpoint", run, "--data", data, "--protocol", "knn"],
        ["finetune", "--checkpoint", run, "--data", data, "--out", classifier, *FINETUNE],
        ["predict", data, "--model", classifier],
        ["predict", data, "--model", classifier, "--out", f"{folder}/answers.txt"],
        ["table", run],
        ["plot", run, "--out", f"{folder}/plots"],
    ]


def write_table(path: Path) -> None:
    """Two classes of eight clips, seventeen joints."""
    rows = [
        f"c{clip},{clip % 2},{frame},{joint},{joint + (1 + clip % 2) * frame + clip / 9},{joint * clip % 5}"
        for clip in range(16)
        for frame in range(12)
        for joint in range(17)
    ]
    path.write_text("\n".join(["clip,label,frame,joint,x,y", *rows]) + "\n", encoding="utf-8")


@pytest.mark.slow
@posix
@pytest.mark.parametrize("name", [b"-dash %s [x] {y} $HOME two\nlines \xf0\x9f\x98\x80", b"bytes \xff\xfe"])
def test_everything_odd_at_once(name: bytes, tmp_path: Path) -> None:
    """No home, no temporary folder of that name, no terminal, no streams, another locale."""
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    folder.mkdir()
    write_table(folder / "table.csv")
    words = commands(os.fsencode(folder).decode("utf-8", "surrogateescape"))
    odd = {
        "XDG_CACHE_HOME": "relative",
        "TMPDIR": "/dev/null/none",
        "COLUMNS": "0",
        "LINES": "x",
        "TERM": "",
        "TZ": "No/Where:",
    }
    odd |= {"LC_ALL": "tr_TR.UTF-8", "LANG": "de_DE", "PYTHONUTF8": "0", "MPLCONFIGDIR": "/dev/null/mpl"}
    odd |= {
        "PYTHONPATH": str(ROOT),
        "WORDS": json.dumps(words),
        "TOLD": str(tmp_path / "told"),
        "OMP_NUM_THREADS": "1",
    }
    environment = {
        key: value for key, value in os.environ.items() if key not in ("HOME", "FASTAMR_CACHE")
    } | odd
    environment["FASTAMR_CACHE"] = str(cache.cache_folder())  # what is there need not be compiled again
    line = 'exec "$0" -c "$1" <&- >&-'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, DRIVER],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    said = [file.read_text(errors="replace")[-2000:] for file in tmp_path.glob("told.err")]
    assert done.returncode == 0, (done.stderr.decode(errors="replace"), said)
    found = [json.loads(row) for row in (tmp_path / "told").read_text(encoding="utf-8").splitlines()]
    assert len(found) == len(words)
    assert not any("Traceback" in told for _, _, told in found)
    failed = [(command, code, told[-800:]) for command, code, told in found if code]
    if b"\xff" in name:  # safetensors opens no such file: said before anything is written
        assert {code for _, code, _ in failed} <= {1, 2}
        assert [told.count("error: ") for _, _, told in failed] == [1] * len(failed)
        assert "is not UTF-8: rename it" in failed[0][2]
        assert not list(folder.glob("*.safetensors"))
        return
    assert failed == []
    assert (folder / "run/complete.json").is_file()
    assert (folder / "answers.txt").stat().st_mode & 0o777 == 0o600


@posix
def test_the_current_folder_was_removed(tmp_path: Path) -> None:
    line = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" -m fastamr "$@"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words, code in ((["info"], 1), (["--help"], 0)):
        done = subprocess.run(
            ["sh", "-c", line, sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert done.stderr == (
            "error: the current folder was removed: change into one that exists (cd DIR) and start again\n"
            if code
            else ""
        )


@posix
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    """Nothing of a command lands in a file that got the number of a stream."""
    code = (
        "import sys\nfrom fastamr import cli\nassert cli.main(['--version']) == 0\n"
        "file = open(sys.argv[1], 'w')\nassert file.fileno() > 2, file.fileno()\n"
        "import os\nos.write(1, b'out')\nos.write(2, b'err')\nfile.close()\n"
    )
    line = f'exec "$0" -c "$1" "$2" {closed}'
    path = tmp_path / "a"
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, code, path], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0
    assert path.read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("unbuffered", [False, True])
def test_output_to_a_full_disk(unbuffered: bool) -> None:
    command = [sys.executable, *["-u"] * unbuffered, "-m", "fastamr", "--help"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_program_without_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    progress.say("a line")
    with progress.Progress(2, "a bar") as bar:
        bar.advance()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no folder for temporary files, not even the current one."""

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)


def test_without_any_temporary_folder(
    nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What needs none works, with the cache that there is; the others say how to name one."""
    used = cache.cache_folder()
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(load, "_reasons", {})
    assert (used in cache.readable()) == (used.is_dir() and cache.why_not_private(used) is None)
    for words in (["cache"], ["layouts"]):
        assert cli.main(words) == 0
    data = tmp_path / "data.safetensors"
    synthetic_actions(4, seed=0, frames=(16, 20)).save(data)
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        write_table(tmp_path / "a.csv")
        archive.write(tmp_path / "a.csv", "a.csv")
        archive.write(tmp_path / "a.csv", "b.csv")
    capsys.readouterr()
    for words in (
        ["import", str(tmp_path / "clips.zip"), str(tmp_path / "x.safetensors")],
        ["show", str(data), "--out", str(tmp_path / "a.gif")],
    ):
        assert cli.main(words) == 1, words
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("error: ")
        assert "No usable temporary directory" in told
        assert "TMPDIR names another folder" in told


def test_a_temporary_folder_that_is_full(tmp_path: Path) -> None:
    def write(path: str | None) -> None:
        with temporary_folder() as folder:
            raise OSError(
                errno.ENOSPC, "No space left on device", path if path != "inside" else str(folder / "a")
            )

    for path in (None, "inside"):
        with pytest.raises(OSError, match="No space left on device; TMPDIR names another folder"):
            write(path)
    with pytest.raises(OSError, match="No space left on device: '/elsewhere'"):
        write("/elsewhere")


@pytest.mark.parametrize(
    "variables", [{}, {"HOME": "relative"}, {"HOME": "/x", "XDG_CACHE_HOME": "relative"}]
)
def test_where_the_cache_is(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder would be another one wherever a command is started."""
    for name in ("HOME", "XDG_CACHE_HOME", "FASTAMR_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not variables:
        monkeypatch.setattr(Path, "home", _nobody)
    folder = cache.cache_folder()
    assert folder.is_absolute()
    assert folder == (Path("/x/.cache/fastamr") if "XDG_CACHE_HOME" in variables else cache._folders()[-1])


def _nobody() -> Path:
    raise RuntimeError("Could not determine home directory.")


@posix
def test_the_name_of_a_mapped_file_may_hold_any_bytes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff\n")))
    path.write_bytes(b"0" * 64)
    if load.why_not("cpu") is not None:
        pytest.skip("needs the compiled extension")
    load.watch_mapping(torch.zeros(4), path, 64)
