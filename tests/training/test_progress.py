from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import pytest

from fastamr.progress import Progress, say


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "nothing happened for 30 s"
        time.sleep(0.01)


def test_shows_name_count_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(4, "amr")
    bar.advance(3, "loss 0.2500")
    bar.advance(1, "loss 0.1250")
    bar.advance(0, "loss 0.0625")
    bar.close()
    shown = capsys.readouterr().err
    assert "amr: 100%" in shown
    assert "4/4" in shown
    assert shown.rstrip().endswith("loss 0.0625]")


def test_the_clock_moves_while_no_update_ends(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ""

    def moved() -> bool:
        nonlocal shown
        shown += capsys.readouterr().err
        return len(set(re.findall(r"\[(\d\d:\d\d)<", shown))) >= 3

    with Progress(1600, "amr", start=7, interval=0.05):
        wait_until(moved)
    assert "7/1600" in shown
    assert "8/1600" not in shown


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with Progress(4, "amr", show=False) as bar:
        bar.advance(4, "loss 0.25")
        assert threading.active_count() == before
    assert capsys.readouterr().err == ""


def test_nothing_is_drawn_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    bar = Progress(4, "amr", interval=0.01)
    bar.close()
    bar.close()
    assert threading.active_count() <= before + 1  # tqdm keeps a monitor of its own
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_lines_stand_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4, "amr"):
        say("one\ntwo")
        say("three")
    lines = [line.split("\r")[-1] for line in capsys.readouterr().err.splitlines()]
    assert [line for line in lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert "amr" in lines[-1]
