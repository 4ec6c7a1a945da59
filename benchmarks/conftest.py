"""What every benchmark shares: the device, a clock that waits for it, and the facts recorded beside each time.

Run with ``pytest benchmarks/ --benchmark-only``. Each case checks its result before it is timed. On a machine without a
GPU the CUDA cases are skipped with the reason, and so is every dtype that a device has no instructions for; figures
from a CPU are labelled as such in ``extra_info``. On a CPU a case gets a few seconds, and what takes long is left out:
``--every-case`` runs all of it with all rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fastamr.devices import device_name, versions
from fastamr.memory import keep_freed_memory

from . import report
from .chosen import automatic, ladder_lines, op_lines
from .device_clock import captured, copy_bandwidth, device_seconds
from .forms import needs_instructions

# Seconds of timed calls of a case on a CPU, without --every-case, and the fewest calls.
BUDGET, FEWEST = 2.0, 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-case", action="store_true", help="benchmarks: also what takes long, with all rounds"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long_case: a benchmark that takes long; run with --every-case")
    Clock.every_case = config.getoption("--every-case")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what takes long and what the device has no instructions for, before anything is made.

    Parameters of a case that are or name a dtype are what it computes in, except ``storage``.
    """
    if item.get_closest_marker("long_case") and not item.config.getoption("--every-case"):
        pytest.skip("takes long: run with --every-case")
    given = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    device = torch.device(given.pop("device", "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        return  # the fixture ``device`` says so
    for value in [value for name, value in given.items() if name != "storage"]:
        needs_instructions(device, value)


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

    Attributes:
        every_case: make all rounds, however long they take: what ``--every-case`` sets for a run.
    """

    every_case = False

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
            dtype: of what it computes in; a case that the device has no instructions for is skipped.
            backend: what computes it.
            rounds: timed calls; on a CPU fewer of what takes long, see :data:`BUDGET`.
            warmup: calls before, not counted.
            bytes_moved: what the op must read and write at least; adds the rate and the share of the byte limit,
                the latter counted with the copy rate measured on the same device.
            facts: whatever else belongs into ``extra_info``.
        """

        def run() -> None:
            function()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        needs_instructions(self.device, dtype)
        rounds = self._rounds(run, rounds)
        facts |= {
            "op": op,
            "shape": list(shape),
            "dtype": str(dtype).removeprefix("torch."),
            "backend": backend,
            "auto": automatic(op, function, self.device, dtype),
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

    def _rounds(self, run: Callable[[], None], wanted: int) -> int:
        """Timed calls that fit the budget of a case; one call is made to see how long it takes."""
        if self.every_case or self.device.type == "cuda" or wanted <= FEWEST:
            return wanted
        start = time.perf_counter()
        run()
        return max(FEWEST, min(wanted, int(BUDGET / (time.perf_counter() - start))))

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


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print below the table of times: rates and device times, then the ops' back ends, last the speed-ups of a step."""
    session = getattr(config, "_benchmarksession", None)
    timed = [bench for bench in getattr(session, "benchmarks", []) if bench.stats.rounds]
    table = report.lines((bench.name, bench.stats.median, bench.extra_info) for bench in timed)
    if table:
        device = {bench.extra_info["device"] for bench in timed if "device" in bench.extra_info}
        terminalreporter.section(f"bytes and device times: {', '.join(sorted(device))}")
        for line in table:
            terminalreporter.write_line(line)
    facts = [(bench.stats.median, bench.extra_info) for bench in timed if "op" in bench.extra_info]
    for title, lines in (
        ("what auto chooses, beside the best other form", op_lines(facts)),
        ("one pre-training step", ladder_lines(facts)),
    ):
        if lines:
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.write_line(line)
