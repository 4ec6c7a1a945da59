"""Runs one after the other: what fails, is killed or is stopped costs itself alone, and the same call goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastamr import cli
from fastamr.folders import FolderLock
from fastamr.training import PretrainConfig, pretrain

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="the stand-in for runs needs flock")
# Stands for `python -m fastamr pretrain`: a file beside the run's folder says what becomes of it.
STAND_IN = """#!/bin/bash
[ "$1 $2 $3" = "-m fastamr pretrain" ] || exit 99
while [ "$1" != --out ]; do shift; done
cd "$(dirname "$2")" && run=$(basename "$2") && mkdir -p "$run"
exec 9>> "$run/.lock"
flock -n 9 || exit 1
echo "$run" >> started
case "$(cat "$run.becomes" 2>/dev/null)" in
  failed) exit 1 ;;
  killed) kill -KILL $$ ;;
  stopped) exit 130 ;;
  waits) trap 'touch "$run/saved"; exit 130' USR1; trap 'exit 9' INT TERM ;;
  insists) cd "$run"; exec PYTHON -c "INSISTS" ;;
  half) exit 0 ;;
  lasts) touch "$run/ready"; until [ -e go ]; do sleep 0.02; done ;;&
  *) touch "$run/config.json" "$run/model.safetensors"; echo '{"updates": 4}' > "$run/complete.json"; exit 0 ;;
esac
touch "$run/ready"
while :; do sleep 0.02; done
"""

# Bash may lose one of two signals that come together.
INSISTS = """
import os, signal
from pathlib import Path
signal.signal(signal.SIGUSR1, lambda *_: Path('saved').touch())
signal.signal(signal.SIGINT, lambda *_: Path('first').touch())
signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
Path('ready').touch()
while True:
    signal.pause()
"""
STAND_IN = STAND_IN.replace("INSISTS", INSISTS).replace("PYTHON", PYTHON)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "python"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def sweep(out: Path, *words: str) -> int:
    return cli.main(["sweep", "--seeds", "0", "1", "2", "--out", str(out), "--data", "x.st", *words])


def become(out: Path, **words: str) -> None:
    for run, word in words.items():
        (out / f"{run.replace('_', '-')}.becomes").write_text(word)


def started(out: Path) -> list[str]:
    """The runs that were started since the last look."""
    path = out / "started"
    found = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def lines(shown: str) -> list[str]:
    return [" ".join(line.split()).rpartition("/")[2] for line in shown.splitlines()]


def test_one_line_for_each_run(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(out) == 0
    output = capsys.readouterr()
    assert lines(output.out) == [f"seed-{seed} complete 4 updates" for seed in range(3)]
    assert f"run 2 of 3: {out}/seed-1" in output.err
    assert started(out) == ["seed-0", "seed-1", "seed-2"]
    assert not (out / ".lock").exists()


def test_what_fails_or_is_killed_does_not_end_the_rest_and_the_same_call_goes_on(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    become(out, seed_0="failed", seed_1="killed")
    assert sweep(out) == 1
    output = capsys.readouterr()
    assert lines(output.out) == [
        "seed-0 failed exit code 1; nothing is saved",
        "seed-1 failed ended by SIGKILL; nothing is saved",
        "seed-2 complete 4 updates",
    ]
    told = "error: 2 of 3 runs are not complete; the same command makes what is missing\n"
    assert output.err.endswith(told)
    started(out)
    become(out, seed_1="half", seed_0="stopped")
    assert sweep(out) == 1
    assert lines(capsys.readouterr().out)[:2] == [
        "seed-0 stopped nothing is saved",
        "seed-1 failed exit code 0; nothing is saved",
    ]
    become(out, seed_1="", seed_0="")
    assert sweep(out) == 0
    assert started(out) == ["seed-0", "seed-1"] * 2
    assert sweep(out) == 0
    assert started(out) == []


def test_a_run_that_somebody_stopped_is_no_failure(out: Path) -> None:
    become(out, seed_1="stopped")
    assert sweep(out) == 130
    assert started(out) == ["seed-0", "seed-1", "seed-2"]


def test_stop_after_a_failure(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    become(out, seed_1="failed")
    assert sweep(out, "--stop") == 1
    assert lines(capsys.readouterr().out)[1:] == [
        "seed-1 failed exit code 1; nothing is saved",
        "seed-2 not started nothing is saved",
    ]
    assert started(out) == ["seed-0", "seed-1"]


def test_other_settings_are_looked_at_by_the_run_itself(out: Path) -> None:
    assert sweep(out) == sweep(out) == 0
    assert started(out) == ["seed-0", "seed-1", "seed-2"]
    assert sweep(out, "--lr", "2e-3") == 0
    assert started(out) == ["seed-0", "seed-1", "seed-2"]


def test_two_sweeps_in_one_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FolderLock(out, "fastamr sweep"):
        assert sweep(out) == 1
    assert f"error: {out} is in use by fastamr sweep (process {os.getpid()}" in capsys.readouterr().err
    assert started(out) == []


def test_the_folder_of_a_run(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "state.safetensors").write_text("")
    assert sweep(out) == 1
    assert "holds a run itself; name a folder that holds none" in capsys.readouterr().err


@pytest.fixture
def later() -> Iterator[Any]:
    """Sends signals to this process once a file is there."""
    threads = []

    def send(file: Path, *numbers: signal.Signals, then: Path | None = None) -> None:
        def wait() -> None:
            for number, awaited in zip(numbers, (file, then), strict=False):
                while awaited is not None and not awaited.exists():
                    time.sleep(0.01)
                os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=wait, daemon=True))
        threads[-1].start()

    yield send
    for thread in threads:
        thread.join(timeout=10)


@pytest.fixture
def keep_handler() -> Iterator[Any]:
    """Sets a handler, whatever the tests were started with (in the background, under nohup), and returns it."""
    before = {}

    def keep(number: signal.Signals, handler: Any) -> Any:
        before[number] = signal.signal(number, handler)
        return handler

    yield keep
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_has_the_run_save_and_starts_no_other(
    out: Path, later: Any, keep_handler: Any, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    become(out, seed_1="waits")
    before = keep_handler(number, signal.SIG_DFL)
    later(out / "seed-1" / "ready", number)
    assert sweep(out) == 130
    assert signal.getsignal(number) == before
    output = capsys.readouterr()
    assert lines(output.out) == [
        "seed-0 complete 4 updates",
        "seed-1 stopped nothing is saved",
        "seed-2 not started nothing is saved",
    ]
    assert output.err.splitlines()[-1].startswith(
        "interrupted: 2 of 3 runs are not complete; the same command"
    )
    assert (out / "seed-1" / "saved").exists()
    assert started(out) == ["seed-0", "seed-1"]


def test_under_nohup_a_terminal_that_is_closed_ends_nothing(out: Path, later: Any, keep_handler: Any) -> None:
    become(out, seed_0="lasts")
    keep_handler(signal.SIGHUP, signal.SIG_IGN)
    later(out / "seed-0" / "ready", signal.SIGHUP)
    threading.Timer(0.3, (out / "go").touch).start()
    assert sweep(out) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_insists(out: Path, later: Any, number: signal.Signals) -> None:
    become(out, seed_0="insists")
    later(out / "seed-0" / "ready", number, number, then=out / "seed-0" / "saved")
    assert sweep(out) == 130
    assert (out / "seed-0" / "first").exists()


def start(out: Path) -> subprocess.Popen[str]:
    """A sweep of two runs in a process of its own, once the first one is ready."""
    code = "import sys; from fastamr.cli import main; sys.executable = sys.argv.pop(1); sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "sweep", "--seeds", "0", "1", "--out", str(out), "--data", "x.st"]
    process = subprocess.Popen(
        [PYTHON, "-c", code, *words], cwd=ROOT, start_new_session=True, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (out / "seed-0" / "ready").exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_ctrl_c_in_a_terminal_reaches_the_run_once(out: Path) -> None:
    """The run is in a process group of its own: the terminal signals that of the sweep alone."""
    become(out, seed_0="waits")
    process = start(out)
    os.killpg(process.pid, signal.SIGINT)
    shown, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert lines(shown)[0] == "seed-0 stopped nothing is saved"
    assert (out / "seed-0" / "saved").exists()


def test_a_killed_sweep_leaves_a_run_that_finishes(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder stays locked meanwhile, as a run of fastamr locks it."""
    become(out, seed_0="lasts")
    process = start(out)
    process.kill()
    process.wait()
    assert sweep(out) == 1
    assert [line.split()[1] for line in lines(capsys.readouterr().out)] == ["failed", "complete", "complete"]
    assert started(out) == ["seed-0", "seed-1", "seed-2"]
    (out / "go").touch()
    while not (out / "seed-0" / "complete.json").exists():
        time.sleep(0.02)
    become(out, seed_0="")
    assert sweep(out) == 0


SMALL = {"frames": 16, "width": 8, "depth": 1, "heads": 2, "target_patches": 1}
SMALL |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}


@pytest.mark.slow
def test_real_runs_are_those_of_pretrain_and_go_on_where_they_were(
    tmp_path: Path, save_data: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    config = PretrainConfig(
        data=[str(save_data("data.safetensors"))], split="xsub", architecture=SMALL, batch_size=8, min_frames=8,
        updates=3, device="cpu", tensorboard=False, progress=False, log_every=1,
    )  # fmt: skip
    config.save(tmp_path / "config.yaml")
    words = ["sweep", str(tmp_path / "config.yaml"), "--seeds", "0", "1", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastamr", *words, "--updates", "100000"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    metrics = tmp_path / "out" / "seed-0" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count('"train"') < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    made = int(shown.split("update ")[1].split(" of")[0].replace(",", ""))
    assert lines(shown)[0] == f"seed-0 stopped update {made:,} of 100,000 is saved"
    assert lines(shown)[1] == "seed-1 not started nothing is saved"

    longer = [*words, "--updates", str(made + 2)]
    assert cli.main(longer) == 0
    assert [line.split(",")[0] for line in lines(capfd.readouterr().out)] == [
        f"seed-{seed} complete {made + 2:,} updates" for seed in (0, 1)
    ]
    alone = PretrainConfig.from_dict(
        config.to_dict() | {"updates": made + 2, "seed": 1, "out": str(tmp_path / "alone")}
    )
    pretrain(alone, quiet=True)
    mine, its = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "out/seed-1"))
    assert all(torch.equal(mine[name], its[name]) for name in mine)
    before = metrics.read_text()
    assert cli.main(longer) == 0
    assert metrics.read_text() == before
    assert set(json.loads((tmp_path / "out" / "sweep.json").read_text())) == {"seed-0", "seed-1"}
