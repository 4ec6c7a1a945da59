"""What every benchmark shares: the device, a clock that waits for it, and the facts recorded beside each time.

Run with ``pytest benchmarks/ --benchmark-only``. Each case checks its result before it is timed. On a machine without a
GPU the CUDA cases are skipped with the reason; figures from a CPU are labelled as such in ``extra_info``.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import fastamr


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each case runs on the CPU and, where there is one, on the GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU; torch.cuda.is_available() is false")
    return torch.device(request.param)


def device_name(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


class Clock:
    """Times a function and records what was timed.

    Args:
        benchmark: the pytest-benchmark fixture of the case.
        device: where the function runs.
    """

    def __init__(self, benchmark: BenchmarkFixture, device: torch.device) -> None:
        self.benchmark, self.device = benchmark, device

    def __call__(
        self, function: Callable[[], object], *, rounds: int = 20, warmup: int = 3, **facts: Any
    ) -> float:
        """Time ``function`` and return the median in seconds.

        Args:
            function: what to time; it is waited for on a GPU.
            rounds: timed calls.
            warmup: calls before, not counted.
            facts: op, shape, dtype, backend and whatever else belongs into ``extra_info``.
        """

        def run() -> None:
            function()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        self.benchmark.extra_info.update(
            device=device_name(self.device),
            fastamr=fastamr.__version__,
            torch=torch.__version__,
            python=platform.python_version(),
            **facts,
        )
        self.benchmark.pedantic(run, rounds=rounds, warmup_rounds=warmup)
        assert self.benchmark.stats is not None
        return self.benchmark.stats.stats.median


@pytest.fixture
def clock(benchmark: BenchmarkFixture, device: torch.device) -> Clock:
    """The :class:`Clock` of the case."""
    return Clock(benchmark, device)


@pytest.fixture
def sequences(device: torch.device) -> int:
    """Sequences of a benchmark batch: the papers' 256 on a GPU, 32 for single ops on a CPU."""
    return 256 if device.type == "cuda" else 32
