"""Signals are answered at once, also while compiled code holds the main thread."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fastamr.training.interrupt as module
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.interrupt import StopSignals

ROOT = Path(__file__).resolve().parents[2]
# Compiled code of far longer than any wait of these tests, in which no Python handler runs; a thread says when it does.
HOLD = "late.start(); hashlib.pbkdf2_hmac('sha512', b'x', b'y', 2_000_000_000)"


def start(code: str) -> subprocess.Popen[str]:
    """Run a script until it prints ``ready``."""
    text = (
        "import hashlib, os, signal, sys, threading, time\n"
        "from fastamr.training.interrupt import StopSignals\n"
        "late = threading.Timer(0.5, lambda: print('ready', flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text + textwrap.dedent(code)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def test_compiled_code_hinders_neither_the_answer_nor_the_end() -> None:
    process = start(
        f"""
        with StopSignals(lambda: "checkpoint of update 4 is kept", "finishing this update"):
            {HOLD}
        """
    )
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "finishing this update\n"
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert (process.returncode, shown) == (130, "interrupted: checkpoint of update 4 is kept\n")


def test_without_anything_to_finish_the_first_signal_ends_it() -> None:
    process = start(
        f"""
        with StopSignals(lambda: "nothing was written"):
            {HOLD}
        """
    )
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=60)
    assert (process.returncode, shown) == (130, "interrupted: nothing was written\n")


def test_an_interactive_session_is_not_ended() -> None:
    """It gets its ``KeyboardInterrupt`` when the compiled code returns."""
    process = start(
        """
        import fastamr.training.interrupt as module
        sys.ps1, module._GRACE = ">>> ", 0.01
        begin = time.perf_counter()
        hashlib.pbkdf2_hmac("sha512", b"x", b"y", 100_000)
        count = int(100_000 * 1.5 / (time.perf_counter() - begin))
        try:
            with StopSignals(lambda: "kept"):
                late.start()
                hashlib.pbkdf2_hmac("sha512", b"x", b"y", count)
                time.sleep(60)
        except KeyboardInterrupt as stop:
            print("caught", stop)
        """
    )
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=120)
    assert (process.returncode, shown, errors) == (0, "caught kept\n", "")


def test_the_second_signal_raises_where_python_runs() -> None:
    process = start(
        """
        try:
            with StopSignals(lambda: "kept", "finishing") as stop:
                print("ready", flush=True)
                while True:
                    time.sleep(0.01)
                    if stop.requested:
                        print("requested", flush=True)
                        time.sleep(60)
        except KeyboardInterrupt as stop:
            print("caught", stop)
        """
    )
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "requested\n"
    process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    assert (process.returncode, shown, errors) == (0, "caught kept\n", "finishing\n")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs SIGUSR1")
def test_a_queues_notice_is_answered_once_and_never_cuts_short() -> None:
    """A queue may send SIGUSR1 to each part of a job, and SIGTERM some time after it."""
    process = start(
        """
        with StopSignals(lambda: "kept", "finishing") as stop:
            print("ready", flush=True)
            while not stop.requested:
                time.sleep(0.01)
            print("requested", flush=True)
            while stop._seen < 1 or not stop._insisted:
                time.sleep(0.01)
        print("saved", flush=True)
        """
    )
    assert process.stdout is not None
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "requested\n"
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    shown, errors = process.communicate(timeout=60)
    assert (process.returncode, shown, errors) == (0, "saved\n", "finishing\n")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However loaded the machine is, the process of the tests is not ended."""
    monkeypatch.setattr(module, "_GRACE", 600.0)


@pytest.mark.usefixtures("patient")
def test_everything_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    threads = threading.active_count()
    with StopSignals(lambda: "kept", "finishing") as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        while not stop.requested:
            time.sleep(0.01)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    assert capsys.readouterr().err == "finishing\n"


@pytest.mark.usefixtures("patient")
def test_other_signals_and_other_errors_pass() -> None:
    previous = signal.signal(signal.SIGUSR2, lambda *_: None)
    with StopSignals(lambda: "kept") as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, previous)
    assert not stop.requested
    with pytest.raises(KeyboardInterrupt, match="my own"), StopSignals(lambda: "kept"):
        raise KeyboardInterrupt("my own")


def test_another_thread_sets_no_handler() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside = []

    def run() -> None:
        with StopSignals(lambda: "kept") as stop:
            inside.append((signal.getsignal(signal.SIGINT), stop.requested))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [(before, False)]


def test_pretrain_stops_at_once_and_keeps_its_checkpoint(tmp_path: Path, make_skeletons: Any) -> None:
    """The first Ctrl-C comes while an update is computed, the second before it ends."""
    make_skeletons(20).save(tmp_path / "data.safetensors")
    small = {"frames": 24, "width": 8, "depth": 1, "heads": 2}
    small |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    config = PretrainConfig(
        data=[str(tmp_path / "data.safetensors")], out=str(tmp_path / "run"), architecture=small, batch_size=8,
        min_frames=8, updates=6, checkpoint_every=1.0, device="cpu", tensorboard=False, progress=False,
    )  # fmt: skip
    config.save(tmp_path / "config.yaml")
    process = start(
        f"""
        from fastamr.cli import main
        from fastamr.training import PretrainStep

        call = PretrainStep.__call__

        def held(step):
            if step.update == 4:
                {HOLD}
            return call(step)

        PretrainStep.__call__ = held
        raise SystemExit(main(["pretrain", "--config", {str(tmp_path / "config.yaml")!r}]))
        """
    )
    assert process.stderr is not None
    kept = (tmp_path / "run" / "state.safetensors").read_bytes()
    process.send_signal(signal.SIGINT)
    while (line := process.stderr.readline()) != "finishing this update; press Ctrl-C again to stop now\n":
        assert line, "the process has ended"
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert shown == (
        "interrupted: stopped in update 5; checkpoint of update 4 is kept; continue with --resume auto\n"
    )
    assert (tmp_path / "run" / "state.safetensors").read_bytes() == kept
    states = []
    for out in ("run", "whole"):
        pretrain(dataclasses.replace(config, out=str(tmp_path / out), resume="auto"), quiet=True)
        states.append(load_file(tmp_path / out / "state.safetensors"))
    assert all(torch.equal(states[1][name], tensor) for name, tensor in states[0].items())
