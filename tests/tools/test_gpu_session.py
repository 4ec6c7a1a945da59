"""The driver of a session on a GPU: whatever its parts do, it ends in time, with what they found and exit status 0."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "gpu_session.py"


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=400)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def read(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "results.jsonl").read_text(encoding="ascii").splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def ends(results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How each part went."""
    return {line["part"]: line for line in results if "status" in line}


def is_running(process: int) -> bool:
    try:
        return (
            "Z" not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        )
    except OSError:
        return False


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("session")
    return folder, run("--out", str(folder), "--rehearse", cwd=folder)


@pytest.mark.slow
class TestRehearsal:
    def test_each_part_ends_as_it_did(self, session: tuple[Path, Any]) -> None:
        folder, done = session
        assert done.returncode == 0, done.stderr
        found = ends(read(folder))
        assert {name: end["status"] for name, end in found.items()} == {
            "gate": "ok", "lies": "failed", "measures": "ok", "hangs": "over", "crashes": "failed",
            "shouts": "failed", "floods": "over", "lingers": "ok", "silent": "failed", "last": "ok",
        }  # fmt: skip
        assert found["crashes"]["why"] == "died of SIGSEGV"
        assert found["lies"]["why"] == "exit status 1; 5 unreadable lines, see lies.log"
        assert found["shouts"]["why"] == "1 unreadable lines, see shouts.log"
        assert found["silent"]["why"] == "no result"
        assert found["hangs"]["seconds"] < 5
        assert found["gate"]["wrong"] == 1

    def test_results_come_from_sound_lines_only(self, session: tuple[Path, Any]) -> None:
        folder, done = session
        results = read(folder)
        assert [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")] == results
        by_part = {name: [line for line in results if line["part"] == name] for name in ends(results)}
        assert by_part["shouts"][0]["after"] == "the long line"
        assert by_part["crashes"][0]["before"] == "the crash"
        assert by_part["last"][0]["ok"] is True
        assert len(by_part["floods"]) == 2000 + 1
        first, *rest = by_part["lies"]
        assert first["at"] >= 0
        assert "status" not in first
        assert len(rest) == 2

    def test_what_a_gate_did_not_let_through_is_marked(self, session: tuple[Path, Any]) -> None:
        measured = {line.get("name"): line for line in read(session[0]) if line["part"] == "measures"}
        assert measured["sound"]["gate"] is True
        assert (measured["unsound"]["gate"], measured["unsound"]["ms"]) == (False, 0.5)
        assert measured["unsound"]["gate_why"] == "second=bad is wrong"
        assert measured["unseen"]["gate_why"] == "fourth=new was not checked"
        assert measured["half seen"]["gate_why"] == "fifth=half was not checked in full"
        assert measured["hung"]["gate_why"] == "sixth=hung was not checked in full"
        assert "gate" not in measured["without a gate"]
        assert measured["not finite"]["ms"] == "NaN"

    def test_nothing_is_left_running(self, session: tuple[Path, Any]) -> None:
        left = [process for line in read(session[0]) for process in line.get("left", [])]
        assert len(left) == 3
        assert not any(is_running(process) for process in left)

    def test_files_stay_small(self, session: tuple[Path, Any]) -> None:
        assert max(path.stat().st_size for path in session[0].iterdir()) < 1 << 20

    def test_summary(self, session: tuple[Path, Any]) -> None:
        folder, done = session
        text = (folder / "summary.txt").read_text(encoding="ascii")
        assert done.stdout.endswith(text + "\n")
        assert "second=bad [WRONG]" in text
        assert "unsound: 0.5 ms [gate: false]" in text
        assert "\x1b" not in text


@pytest.mark.slow
def test_the_session_ends_in_time(tmp_path: Path) -> None:
    began = time.monotonic()
    parts = ("hangs", "floods", "last")
    assert run("--out", str(tmp_path), "--rehearse", "--seconds", "4", "--only", *parts).returncode == 0
    assert time.monotonic() - began < 9
    found = ends(read(tmp_path))
    assert [found[name]["status"] for name in parts] == ["over", "skipped", "skipped"]
    assert found["last"]["why"] == "no time was left"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_what_was_found(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, str(TOOL), "--out", str(tmp_path), "--rehearse", "--only", "gate", "hangs"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    path, left = tmp_path / "results.jsonl", []
    try:
        while not left:
            time.sleep(0.05)
            assert process.poll() is None
            left = [each for line in read(tmp_path) for each in line.get("left", [])] if path.exists() else []
        process.send_signal(number)
        process.wait(timeout=20)
        assert "first=good" in (tmp_path / "summary.txt").read_text()
        if number == signal.SIGTERM:
            assert process.returncode == 0
            assert ends(read(tmp_path))["session"]["why"] == "SIGTERM"
        until = time.monotonic() + 20
        while any(is_running(each) for each in left):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        for each in left:
            if is_running(each):
                os.killpg(os.getpgid(each), signal.SIGKILL)
        process.kill()


def test_later_sessions_add_to_the_results(tmp_path: Path) -> None:
    for _ in range(2):
        assert run("--out", str(tmp_path), "--rehearse", "--only", "last").returncode == 0
    assert [line["part"] for line in read(tmp_path)] == ["session", "last", "last"] * 2


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("--out", str(tmp_path / "file"), "--rehearse", "--only", "last")
    assert done.returncode == 0
    assert "session  failed" in done.stdout


def test_the_plan_fits_into_a_session() -> None:
    done = run("--plan")
    assert done.returncode == 0
    seconds = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines()}
    assert list(seconds)[:3] == ["machine", "warmup", "gate1"]
    assert list(seconds)[-1] == "tests"
    assert sum(list(seconds.values())[:-1]) <= 540


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--out", "x", "--only", "gates"],
            "--only gates: no such part; expected some of machine warmup",
        ),
        (["--out", "x", "--seconds", "0"], "--seconds 0.0: expected a positive number"),
        ([], "--out is missing"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", ["gpu-session", "check-gpu"])
def test_make_installs_nothing_on_a_machine_with_a_gpu(target: str, tmp_path: Path) -> None:
    """Its time is short, and it may reach no package index."""
    command = ["make", "--dry-run", target, f"VENV={tmp_path / 'none'}", "PYTHON=the-python"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "the-python" in done.stdout
    assert not re.search(r"\bpip\b|venv|install", done.stdout)


def test_named_parts_share_the_time() -> None:
    done = run("--plan", "--only", "tune", "again", "--seconds", "210")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["tune", "160"], ["again", "50"]]


def test_the_driver_needs_the_standard_library_only() -> None:
    command = [sys.executable, "-S", str(TOOL), "--plan"]
    assert "machine" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


BARE = """
import sys

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("jsonargparse", "docstring_parser", "xdist", "benchmark", "matplotlib"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing)
from tools.session_parts.__main__ import PARTS, TASKS, find
for name in (*PARTS.values(), *(name for names in TASKS.values() for name in names)):
    find(name)
"""


@pytest.mark.slow
def test_the_parts_run_from_a_bare_checkout() -> None:
    subprocess.run([sys.executable, "-c", BARE], cwd=ROOT, check=True, timeout=120)


@pytest.mark.slow
def test_real_parts_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that need a GPU say so; the driver marks what they say."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    parts = ("warmup", "gate1", "attention", "tests")
    done = run("--out", str(tmp_path), "--device", "cpu", "--small", "--seconds", "300", "--only", *parts)
    assert done.returncode == 0
    results = read(tmp_path)
    assert {name: (end["status"], end["wrong"]) for name, end in ends(results).items()} == dict.fromkeys(
        parts, ("ok", 0)
    ), (tmp_path / "summary.txt").read_text(encoding="ascii")
    said = {
        name: [line for line in results if line["part"] == name and "status" not in line] for name in parts
    }
    assert [line["skipped"] for line in said["warmup"]] == ["Triton cannot run here"]
    forms = [line for line in said["attention"] if "uses" in line]
    assert len(forms) > 4
    assert all(line["gate"] for line in forms)
    assert said["tests"][-1]["total"].keys() <= {"skipped"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_every_part_says_so(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--only", "machine", "gate2")
    assert done.returncode == 0
    found = ends(read(tmp_path))
    why = "exit status 1: no GPU that PyTorch can use: torch.cuda.is_available() is false"
    assert {name: found[name]["why"] for name in ("machine", "gate2")} == dict.fromkeys(
        ("machine", "gate2"), why
    )
    assert found["build"]["status"] == "failed"
