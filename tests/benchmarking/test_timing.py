from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from fastamr.benchmarking import timing
from fastamr.benchmarking.machine import matmul_rate
from fastamr.benchmarking.timing import PeakMemory, TimeLeft, duration, measure

CPU = torch.device("cpu")


def test_measure_leaves_the_warm_up_out() -> None:
    pauses = iter([0.05, 0.05, 0.0, 0.01])
    calls = 0

    def function() -> None:
        nonlocal calls
        calls += 1
        time.sleep(next(pauses))

    first, second = measure(function, CPU, rounds=2, warmup=2)
    assert calls == 4
    assert first < 0.01 <= second


def test_time_left_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    left = TimeLeft([6.0, 3.0, 1.0])
    assert left.seconds() is None
    now = 4.0
    left.learn(2.0, 1.0)  # a sixth of the first job took 2 s: all take 20, 4 have passed
    assert left.seconds() == 16.0
    now = 18.0
    left.done()  # the first job took 18 s, 3 a unit
    assert left.seconds() == 12.0
    left.learn(100.0, 1.0)  # later ones go by what is done
    assert left.seconds() == 12.0
    now = 21.0
    left.done()
    assert left.seconds() == pytest.approx(21 / 9)
    left.done()
    assert left.seconds() == 0.0


def test_durations_in_words() -> None:
    words = [duration(seconds) for seconds in (0.0, 119.9, 120.0, 7200.0, 3 * 86400.0, 2500 * 86400.0)]
    assert words == ["0.0 s", "119.9 s", "2.0 minutes", "2.0 hours", "3.0 days", "2,500.0 days"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")
def test_peak_memory_of_a_cpu() -> None:
    """What is freed again still counts, until it is given back to the system and the peak forgotten.

    Where :func:`fastamr.memory.keep_freed_memory` was called in this process, freeing alone keeps the pages.
    """
    memory = PeakMemory(CPU)
    block = torch.ones(64 << 20, dtype=torch.uint8)
    del block
    assert 60 << 20 < (memory.read() or 0) < 200 << 20
    timing.give_back()
    memory.restart()
    assert (memory.read() or 0) < 30 << 20


def test_peak_memory_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_STATUS", Path("/no/such/file"))
    assert PeakMemory(CPU).read() is None


def test_matmul_rate_is_that_of_a_product() -> None:
    before = torch.get_float32_matmul_precision()
    assert 1e8 < matmul_rate(CPU, torch.float32, size=256) < 1e14
    assert torch.get_float32_matmul_precision() == before
