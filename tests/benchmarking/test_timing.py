from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from fastamr.benchmarking import timing
from fastamr.benchmarking.machine import matmul_rate
from fastamr.benchmarking.timing import PeakMemory, measure

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
