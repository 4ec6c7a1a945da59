"""The shared reproducers of faults found by attacking the library: each folder's own script, run on this checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastamr import cli
from fastamr.models import MAMPModel

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT.parent / "shared" / "cases" / "trust"
Script = Callable[..., str]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason="no folder ../shared/cases/trust beside the checkout"),
]
as_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="mounts or changes users: root only"
)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """A call that runs a script of a folder in a copy of it, its text changed before, and returns what it says."""
    tools, trust = tmp_path / "venv" / "bin", tmp_path / "trust"
    tools.mkdir(parents=True)
    for name, words in (("fastamr", f"{sys.executable} -m fastamr"), ("python", sys.executable)):
        (tools / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (tools / name).chmod(0o755)
    trust.mkdir()
    for name in ("env.sh", "make_data.py"):
        shutil.copyfile(CASES / name, trust / name)
    places = {"VENV": str(tools.parent), "TRUST": str(trust), "DATA": str(trust / "data.safetensors")}
    environment = {**os.environ, **places, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, trust / "make_data.py"], env=environment, check=True)

    def run(folder: str, name: str, *changes: tuple[str, str]) -> str:
        place = trust / folder
        if not place.exists():
            shutil.copytree(CASES / folder, place)
            for path in (place, *place.rglob("*")):
                path.chmod(path.stat().st_mode | 0o200)
        text = (place / name).read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (place / name).write_text(text)
        command = ["bash", f"./{name}"] if name.endswith(".sh") else [sys.executable, name]
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        return done.stdout + done.stderr + f"\nends with {done.returncode}"

    return run


def test_01_files_in_the_folder_stay(script: Script) -> None:
    text = script("01_out_folder_deleted", "run.sh")
    for name in ("features/extracted.npy", "tensorboard/events.of.another.run", "evaluation_notes.json"):
        assert text.count(f"mine/{name}") == 2


def test_02_killed_before_the_last_model(script: Script) -> None:
    # The function that writes the state has moved.
    text = script(
        "02_final_model_stale", "run_kill.py", ('fastamr.training.pretrain"', 'fastamr.training.keeper"')
    )
    assert "resume: exit 0" in text
    assert "uninterrupted run: True | model == its own state.safetensors: True" in text


@as_root
def test_02_full_disk_before_the_last_model(script: Script) -> None:
    text = script("02_final_model_stale", "run_disk_full.sh")
    assert "rc 1 (the only checkpoint" in text
    assert "resume rc 0" in text
    assert "model.safetensors" in text.splitlines()


def test_03_the_second_run_is_refused(script: Script) -> None:
    # Long enough to be there still when the second one has started, on a fast machine too.
    text = script("03_two_runs_one_folder", "run.sh", ("--updates 150", "--updates 1000"))
    assert "second rc 1" in text
    assert "first rc 0" in text
    assert "is in use by" in text
    assert "lr: 0.001" in text.splitlines()
    assert "state: update 1000 lr 0.001" in text


@pytest.mark.parametrize("place", range(3))
def test_04_flipped_bits(place: int, script: Script) -> None:
    """Of the three flips one is made at a time; the folder is copied always."""
    text = (CASES / "04_bit_flips_load" / "run.py").read_text()
    lines = [line for line in text.splitlines() if "flip(" in line and not line.startswith("def ")]
    assert len(lines) == 3
    changes = [(line, "") for number, line in enumerate(lines) if number != place]
    if place == 2:
        changes[1] = (lines[1], lines[1].split(" flip(")[0])
    if place:  # the tensor's name of today
        changes.append(("encoder.embed.weight", "encoder.embed.proj.weight"))
    said = script("04_bit_flips_load", "run.py", *changes)
    assert re.search(r"tensor '[\w.]+' differs from its checksum", said)
    assert re.search(r"^\w+ loads; ", said, re.MULTILINE) is None
    assert "resume exit 0" not in said


def test_05_a_diverged_run_saves_nothing_broken(script: Script) -> None:
    text = script("05_diverged_checkpoint", "run.sh")
    assert len(re.findall("nothing was saved yet", text)) == 2
    assert "nothing to resume in run" in text


def test_06_offsets_that_wrap(script: Script) -> None:
    text = script("06_offsets_overflow_segfault", "run.sh")
    assert re.findall(r"rc (\d+)", text) == ["1", "1"]


def test_07_no_token_kept(script: Script) -> None:
    assert script("07_keep_empty_garbage_gradient", "run.py").count("largest gradient: 0.0") == 2


def test_08_outputs_that_do_not_fit(script: Script) -> None:
    text = script("08_backward_into_unchecked", "run.py")
    assert text.count("rc 1") == 4
    assert "accepted" not in text


def test_09_no_sequence(script: Script) -> None:
    assert "ValueError: cu_seqlens is empty" in script("09_cu_seqlens_empty_sigfpe", "run.py")


def test_10_data_cut_short_under_a_run(script: Script) -> None:
    # Files below 64 MiB are not mapped; this many clips are.
    text = script("10_truncated_data_sigbus", "run.sh", ("range(300)", "range(1300)"))
    assert "rc 1 (135" in text
    assert "error: mapped.safetensors" in text


@as_root
def test_11_a_folder_of_somebody_else(script: Script) -> None:
    text = script("11_tmp_cache_hijack", "run.py")
    assert "does not use the cache /tmp/fastamr-45678: others may write it" in text
    assert "CODE OF ANOTHER USER" not in text


def test_13_output_equals_input(script: Script) -> None:
    text = script("13_out_equals_input", "run.sh")
    assert len(re.findall(r"rc 1: ", text)) == 2
    assert "HTML" not in text


def test_14_hangs(script: Script) -> None:
    start = time.monotonic()
    codes = re.findall(r"rc (\d+) \(124", script("14_hangs", "run.sh"))
    assert codes == ["1", "1", "2", "1", "1"]
    assert time.monotonic() - start < 100
    with pytest.raises(ValueError, match=r"blocks\.pth"):
        MAMPModel.from_released(CASES / "14_hangs" / "blocks.pth", layout="sbu15")


def test_16_tracebacks(script: Script) -> None:
    text = script("16_tracebacks", "run.sh")
    found = re.findall(r"^(\w[^:]*): rc (\d+), tracebacks (\d+): (.*)$", text, re.MULTILINE)
    assert len(found) >= 15
    for name, _, tracebacks, last in found:
        # The last is a call from Python, whose error is the test's.
        assert tracebacks == "0" or (
            name.startswith("from_released") and "ValueError: zero_width.pth" in last
        )
    codes = {name: int(code) for name, code, _, _ in found}
    assert codes.pop("prepare, one damaged LZMA member of three") == 3
    assert codes.pop("import, label above 2^63") == 0
    assert codes.pop("resume, a line of metrics.jsonl is a list") == 0
    assert set(codes.values()) == {1}


@pytest.mark.parametrize("name", ["claims_7TiB.npz", "fold_inf.npz", "parents_inf.npz", "token_error.npz"])
def test_16_the_file_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", str(CASES / "16_tracebacks" / name), str(tmp_path / "x.safetensors")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert name in line


def test_19_an_ascii_locale(script: Script) -> None:
    text = script("19_ascii_locale", "run.sh")
    assert re.findall(r"^(?:check|predict).*: rc (\d+)", text, re.MULTILINE) == ["0"] * 4
    assert "lines 40" in text
    assert "codec" not in text


def test_20_messages(script: Script) -> None:
    text = script("20_messages", "run.sh")
    assert "lr was 0.001 and is now 0.5" in text
    assert int(re.findall(r"warnings in metrics.jsonl: (\d+)", text)[0]) > 0
    assert re.search(r"missing \(other bits\):\n[1-9]", text)
    assert re.search(r"metrics\.jsonl, line \d+ is no record", text)
    if os.getuid() == 0:
        assert "nothing was saved yet: make room, then start the run again" in text
