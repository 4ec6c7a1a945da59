from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastamr import cli
from fastamr.data import PackedSkeletons
from fastamr.data.preprocessing.presets import PRESETS

from ...data.readers.writers import frames_of, pku_label_text, pku_text, skeleton_text, standing

ROOT = Path(__file__).resolve().parents[3]
GOOD = skeleton_text(frames_of((7, 0, standing(15)), (8, 2, standing(12, 1, 1.0))))


def fill(folder: Path, count: int, content: bytes = GOOD) -> Path:
    folder.mkdir()
    first = folder / "S001C001P001R001A001.skeleton"
    first.write_bytes(content)
    for place in range(1, count):
        setup, rest = divmod(place, 60 * 40)
        subject, action = divmod(rest, 60)
        os.link(first, folder / f"S{setup + 1:03d}C001P{subject + 1:03d}R001A{action + 1:03d}.skeleton")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "ntu60.safetensors"


def run(*arguments: object) -> int:
    return cli.main(["prepare", *map(str, arguments), "--no-progress"])


class TestExitCodes:
    def test_done(self, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        raw = fill(tmp_path / "raw", 3)
        (raw / "S002C001P001R001A001.skeleton").write_bytes(skeleton_text([{}, {}]))
        assert run("ntu60", raw, out) == 0
        shown = capsys.readouterr()
        assert re.search(r"^clips +3$", shown.out, re.MULTILINE)
        assert re.search(r"^dropped clips +no body: 1$", shown.out, re.MULTILINE)
        assert (
            f"damaged and left out: 0, of another data set: 0; details: {tmp_path}/ntu60.report.json"
            in shown.out
        )
        assert shown.err == ""

    def test_damaged_files_were_left_out(
        self, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        raw = fill(tmp_path / "raw", 3)
        bad = raw / "S002C001P001R001A001.skeleton"
        bad.write_bytes(GOOD.replace(b"277.419", b"two", 1))
        assert run("ntu60", raw, out) == 3
        assert capsys.readouterr().err == f"left out: {bad}, line 5: 'two' is not a number\n"
        assert PackedSkeletons.load(out).num_clips == 3
        out.unlink()
        assert run("ntu60", raw, out, "--strict") == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {bad}, line 5: 'two' is not a number; repair the file")
        assert error.count("\n") == 1
        assert not out.exists()

    def test_the_progress_bar_names_damaged_files(
        self, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        raw = fill(tmp_path / "raw", 3)
        (raw / "S002C001P001R001A001.skeleton").write_bytes(b"")
        (raw / "x.skeleton").write_bytes(b"")
        assert cli.main(["prepare", "ntu60", str(raw), str(out)]) == 3
        shown = capsys.readouterr()
        assert re.search(r"ntu60: 100%.* 4/4 \[.*file/s\]", shown.err)
        assert f"left out: {raw}/x.skeleton: its name is not" in shown.err
        assert shown.err.count("left out: ") == 2
        assert "left out: /" not in shown.out

    def test_many_damaged_files_are_counted(
        self, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        raw = fill(tmp_path / "raw", 3)
        for place in range(25):
            (raw / f"x{place}.skeleton").write_bytes(b"")
        assert run("ntu60", raw, out) == 3
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 21
        assert lines[-1] == f"left out: 5 more, see {tmp_path}/ntu60.report.json"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["ntu61", "raw", "out"], "KIND is 'ntu61', expected one of ntu60, ntu120"),
            (["pku1", "raw", "out", "--bodies", "1"], "--skip, --bodies, ... are options of ntu..."),
            (["ntu60", "raw", "out", "--keep", "both"], "--keep are options of pku"),
            (["ntu60", "raw", "out", "--bodies", "0"], "bodies is 0"),
            (
                ["ntu60", "raw"],
                "OUT is missing: type fastamr prepare KIND RAW OUT [options]; see fastamr prepare",
            ),
            (["ntu60", "raw", "out", "--min-state", "3"], "invalid choice: 3"),
            (["ntu60", "raw", "out", "--stric"], "unknown option --stric; did you mean --strict?"),
        ],
    )
    def test_wrong_use(self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["prepare", *arguments]) == 2
        assert message in capsys.readouterr().err

    def test_nothing_there(self, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("ntu60", tmp_path / "nothing", out) == 1
        assert capsys.readouterr().err == f"error: no folder or zip archive {tmp_path}/nothing\n"

    def test_help_names_every_option(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["prepare", "--help-all"]) == 0
        shown = capsys.readouterr().out
        assert all(
            f"--{name}" in shown for name in ("strict", "workers", "skip", "min-state", "keep", "preset")
        )
        assert "Exit code 3" in shown


class TestOptions:
    def test_of_ntu(self, tmp_path: Path, out: Path) -> None:
        raw = fill(tmp_path / "raw", 3)
        listed = tmp_path / "missing.txt"
        listed.write_text("2 samples have missing skeletons\n\nS001C001P001R001A001\nS009C001P001R001A001\n")
        assert run("ntu60", raw, out, "--skip", listed, "--bodies", 1, "--min-state", 2, "--workers", 1) == 0
        data = PackedSkeletons.load(out)
        assert (data.num_clips, data.num_bodies) == (2, 2)
        assert data.valid is not None
        assert data.dropped == {"S001C001P001R001A001": "in the list of clips to skip"}
        assert run("ntu60", raw, out, "--skip", raw / "S001C001P001R001A001.skeleton") == 1

    def test_how_bodies_are_chosen(self, tmp_path: Path, out: Path) -> None:
        raw = fill(tmp_path / "raw", 1)
        for options, bodies in (
            ([], 2),
            (["--min-frames", 13], 1),
            (["--motion", 5, 9], 1),
            (["--spread", 0.01], 1),
            (["--spread", 0.01, "--no-denoise"], 2),
        ):
            assert run("ntu60", raw, out, *options) == 0
            assert PackedSkeletons.load(out).num_bodies == bodies, options

    def test_presets_and_steps(self, tmp_path: Path, out: Path) -> None:
        raw = fill(tmp_path / "raw", 2)
        for name in ("mamp", "ctr-gcn", "raw"):
            assert run("ntu60", raw, out, "--preset", name, "--preprocess", "scale:factor=0.5") == 0
            steps = [step["name"] for step in PackedSkeletons.load(out).steps]
            assert len([step for step in steps if step != "note"]) == len(PRESETS[name]) + 1
            assert steps[-1] == "scale"
        assert run("ntu60", raw, out, "--preset", "mampp") == 2

    def test_pku(self, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        stream = np.random.default_rng(0).normal(size=(30, 2, 25, 3)).astype(np.float32)
        for folder, content in (("skeleton", pku_text(stream)), ("label", pku_label_text([(1, 2, 9, 1)]))):
            (tmp_path / "raw" / folder).mkdir(parents=True)
            (tmp_path / "raw" / folder / "A01N01-L.txt").write_bytes(content)
        assert run("pku2", tmp_path / "raw", out, "--keep", "both") == 0
        assert PackedSkeletons.load(out).names == ["A01N01-L", "A01N01-L_0"]
        assert "note: no split xsub: put cross_subject_v2.txt into the folder" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_and_again(tmp_path: Path, out: Path) -> None:
    raw = fill(tmp_path / "raw", 3000, skeleton_text(frames_of((7, 0, standing(60)))))
    command = [sys.executable, "-m", "fastamr", "prepare", "ntu60", str(raw), str(out), "--workers", "2"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What runs the tests may ignore the signal, as a shell's background job does.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    partial = tmp_path / "ntu60.safetensors.partial"
    while len(list(partial.glob("0*.json"))) < 3 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: all processes of the group
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in error
    assert "Traceback" not in error
    finished = len(list(partial.glob("0*.json")))
    assert 3 <= finished < 47
    assert not out.exists()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    assert f"{finished * 64}/3000" in again.stderr
    assert PackedSkeletons.load(out).num_clips == 3000
    assert json.loads((tmp_path / "ntu60.report.json").read_text())["files"] == 3000
    assert not partial.exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    """2 GB of text take at most 100 MB more than 0.2 GB; their coordinates alone have 200 MB."""
    content = skeleton_text(frames_of((7, 0, standing(100)), (8, 0, standing(100, 1, 1.0))))
    peaks = {}
    for gigabytes in (0.2, 2.0):
        count = int(gigabytes * 1e9 / len(content))
        raw = fill(tmp_path / f"raw{count}", count, content)
        code = (
            "import resource, sys\nfrom fastamr.data.prepare.prepare import prepare\n"
            f"prepare('ntu60', {str(raw)!r}, {str(tmp_path / 'out.safetensors')!r})\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        peaks[gigabytes] = int(shown.stdout) / 1024  # Linux tells KB
        assert PackedSkeletons.load(tmp_path / "out.safetensors").num_clips == count
    print(f"peak memory in MB by GB of text: {peaks}")
    assert peaks[2.0] < peaks[0.2] + 100
