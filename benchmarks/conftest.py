"""What every benchmark shares: the device, a clock that waits for it, and the facts recorded beside each time.

Run with ``pytest benchmarks/ --benchmark-only``. Each case checks its result before it is timed. On a machine without a
GPU the CUDA cases are skipped with the reason; figures from a CPU are labelled as such in ``extra_info``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastamr.devices import device_name, versions
from fastamr.memory import keep_freed_memory

from . import report
from .device_clock import captured, copy_bandwidth, device_seconds


@pytest.fixture(scope="session", autouse=True)
def memory_is_kept() -> None:
    """Freed memory is kept, as fastamr's commands do, for every form that is timed."""
    keep_freed_memory()


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each case runs on the CPU and, where there is one, on the GPU."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU; torch.cuda.is_available() is false")
    return torch.device(request.param)


class Clock:
    """Times a function and records what was timed.

    Args:
        benchmark: the pytest-benchmark fixture of the case.
        device: where the function runs.
    """

    def __init__(self, benchmark: BenchmarkFixture, device: torch.device) -> None:
        self.benchmark, self.device = benchmark, device

    def __call__(
        self,
        function: Callable[[], object],
        op: str,
        shape: Sequence[object],
        dtype: torch.dtype | str = "",
        backend: str = "",
        *,
        rounds: int = 20,
        warmup: int = 3,
        bytes_moved: int | None = None,
        **facts: Any,
    ) -> float:
        """Time ``function`` and return the median in seconds: wall clock, launches included.

        On a GPU the time on the device is recorded beside it, with a warm and with a flushed L2 cache.

        Args:
            function: what to time; it is waited for on a GPU.
            op: what it is called.
            shape: of what it works on.
            dtype: of what it works on.
            backend: what computes it.
            rounds: timed calls.
            warmup: calls before, not counted.
            bytes_moved: what the op must read and write at least; adds the rate and the share of the byte limit,
                the latter counted with the copy rate measured on the same device.
            facts: whatever else belongs into ``extra_info``.
        """

        def run() -> None:
            function()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        facts |= {
            "op": op,
            "shape": list(shape),
            "dtype": str(dtype).removeprefix("torch."),
            "backend": backend,
        }
        facts |= self._device_facts(function) if self.device.type == "cuda" else {}
        self.benchmark.extra_info.update(device=device_name(self.device), **versions(), **facts)
        self.benchmark.pedantic(run, rounds=rounds, warmup_rounds=warmup)
        assert self.benchmark.stats is not None
        median = self.benchmark.stats.stats.median
        if bytes_moved is not None:
            seconds = facts.get("device_us_cold", median * 1e6) / 1e6
            limit = bytes_moved / copy_bandwidth(self.device)
            self.benchmark.extra_info.update(
                bytes_moved=bytes_moved,
                gb_per_s=round(bytes_moved / seconds / 1e9, 2),
                byte_limit_us=round(limit * 1e6, 2),
                share_of_byte_limit=round(limit / seconds, 4),
            )
        return median

    def _device_facts(self, function: Callable[[], object]) -> dict[str, Any]:
        """Times on the device in microseconds and the peak memory of one call in MiB."""
        function()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        function()
        torch.cuda.synchronize(self.device)
        facts: dict[str, Any] = {
            "peak_mib": round((torch.cuda.max_memory_allocated(self.device) - before) / 2**20, 2),
            "in_graph": True,
        }
        try:
            function = captured(function, self.device)
        except RuntimeError as error:
            torch.cuda.synchronize(self.device)
            facts |= {"in_graph": False, "why_no_graph": str(error).splitlines()[0]}
        for name, flush in (("warm", False), ("cold", True)):
            facts[f"device_us_{name}"] = round(device_seconds(function, self.device, flush=flush) * 1e6, 2)
        return facts


@pytest.fixture
def clock(benchmark: BenchmarkFixture, device: torch.device) -> Clock:
    """The :class:`Clock` of the case."""
    return Clock(benchmark, device)


@pytest.fixture
def sequences(device: torch.device) -> int:
    """Sequences of a benchmark batch: the papers' 256 on a GPU, 32 for single ops on a CPU."""
    return 256 if device.type == "cuda" else 32


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print rates, shares of the byte limit and device times below the table of times."""
    session = getattr(config, "_benchmarksession", None)
    timed = [bench for bench in getattr(session, "benchmarks", []) if bench.stats.rounds]
    table = report.lines((bench.name, bench.stats.median, bench.extra_info) for bench in timed)
    if table:
        device = {bench.extra_info["device"] for bench in timed if "device" in bench.extra_info}
        terminalreporter.section(f"bytes and device times: {', '.join(sorted(device))}")
        for line in table:
            terminalreporter.write_line(line)
