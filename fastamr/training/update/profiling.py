"""Where the time of an update goes: kernels, launches and gaps, by ``torch.profiler``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ...files import replaced, write_text
from .recording import PREPARING

# Calls by which the host gives the GPU work, as they are named in a trace.
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
PROFILE_FILES = ("profile.txt", "profile.json", "trace.json")


class Span(NamedTuple):
    """A stretch of time, microseconds."""

    start: float
    end: float


@dataclass(frozen=True)
class KernelRow:
    """One kernel (GPU) or operator (CPU) of the profile.

    Attributes:
        name: of the kernel or operator.
        calls: in an update.
        ms: in an update, without what it calls.
        share: of the time in all kernels.
    """

    name: str
    calls: float
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What an update consists of; all times and counts are for one update.

    Attributes:
        environment: versions, device, date.
        what: what was profiled, in words.
        updates: profiled updates.
        wall_ms: from the first to the last moment of the updates. The profiler slows them.
        busy_ms: of that, at least one kernel (CPU: operator) ran.
        gap_ms: the rest: on a GPU launches that came too late, on a CPU Python between operators.
        launches: calls that gave the GPU work, by name; on a CPU the outermost operator calls.
        kernels: by falling time.
    """

    environment: dict[str, Any]
    what: str
    updates: int
    wall_ms: float
    busy_ms: float
    gap_ms: float
    launches: dict[str, float]
    kernels: list[KernelRow]

    def text(self, most: int | None = None) -> str:
        """Return the table for a terminal.

        Args:
            most: rows to show; None shows all.
        """
        facts = self.environment
        kind = "kernel" if facts["device"] == "cuda" else "operator"
        lines = [
            f"{self.what}: {self.updates} updates on {facts['device_name']}, {facts['date']}, torch {facts['torch']}",
            f"one update under the profiler: {self.wall_ms:.2f} ms, of which {self.busy_ms:.2f} ms busy and "
            f"{self.gap_ms:.2f} ms gaps",
            "launches an update: " + ", ".join(f"{count:g} {name}" for name, count in self.launches.items()),
            "",
            f"{'share':>7} {'ms':>9} {'calls':>7}  {kind}",
        ]
        shown = self.kernels[:most]
        lines += [f"{row.share:7.1%} {row.ms:9.3f} {row.calls:7g}  {row.name}" for row in shown]
        rest = self.kernels[len(shown) :]
        if rest:
            share, ms = sum(row.share for row in rest), sum(row.ms for row in rest)
            lines.append(f"{share:7.1%} {ms:9.3f} {sum(row.calls for row in rest):7g}  {len(rest)} more")
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """Write ``profile.txt``, the whole table, and ``profile.json``, the same as numbers."""
        write_text(folder / "profile.txt", self.text() + "\n")
        report = {"kind": "profile", **asdict(self)}
        write_text(folder / "profile.json", json.dumps(report, indent=2) + "\n")


class UpdateProfiler:
    """Profiles the updates between :meth:`start` and :meth:`finish`; results stay the same to the bit.

    Args:
        device: where they run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
        self._profiler = profile(activities=activities)

    def start(self) -> None:
        """Wait for the device, and record from now on."""
        self._wait()
        self._profiler.start()
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Wait for the device, and record no more."""
        self._wait()
        self._seconds = time.perf_counter() - self._began
        self._profiler.stop()

    def result(self, updates: int, environment: dict[str, Any], *, trace: Path, what: str = "") -> Profile:
        """Return what was recorded, and write its Chrome trace.

        Args:
            updates: how many were recorded.
            environment: versions, device and date, for the result.
            trace: the file for the trace, for chrome://tracing or Perfetto.
            what: what was profiled, for the result.

        Raises:
            RuntimeError: the profiler recorded no kernel.
        """
        with replaced(trace) as temporary:
            self._profiler.export_chrome_trace(str(temporary))
        events = list(self._profiler.events() or [])
        kernels, launches, busy = (_device_events if self.device.type == "cuda" else _operators)(events)
        if not kernels:
            raise RuntimeError(
                "the profiler recorded no kernel: is another profiler attached, or CUPTI not installed?"
            )
        total = sum(ms for _, ms in kernels.values())
        rows = [
            KernelRow(name, calls / updates, ms / updates, ms / total if total else 0.0)
            for name, (calls, ms) in sorted(kernels.items(), key=lambda item: -item[1][1])
        ]
        wall = self._seconds * 1e3
        launched = {name: count / updates for name, count in sorted(launches.items())}
        times = (wall / updates, busy / updates, (wall - busy) / updates)
        return Profile(environment, what, updates, *times, launched, rows)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class RunProfile:
    """Profiles some updates of a run while it goes on, and leaves ``PROFILE_FILES`` in the run's folder.

    The first updates are left out: one on a CPU; on a GPU those that run eagerly and the one that is recorded.

    Args:
        updates: how many; 0 for none.
        device: where the run is.
        folder: the run's folder.
    """

    def __init__(self, updates: int, device: torch.device, folder: Path) -> None:
        self.updates, self.device, self.folder = updates, device, folder
        self.preparing = PREPARING.get(device.type, 1)
        self._made, self._profiled = 0, 0
        self._running: UpdateProfiler | None = None

    def before(self) -> None:
        """Start where it is time; call before each update."""
        if self.updates and self._made == self.preparing:
            self._running = UpdateProfiler(self.device)
            self._running.start()

    def after(self, *, last: bool) -> bool:
        """Return whether the profile is complete, so that :meth:`write` can be called; call after each update.

        Args:
            last: something else than the next update follows, which the profile shall not hold.
        """
        self._made += 1
        self._profiled = self._made - self.preparing
        if self._running is None or (self._profiled < self.updates and not last):
            return False
        self._running.stop()
        return True

    def write(self, environment: dict[str, Any], what: str) -> list[str]:
        """Write the files, and return the head of the table and where the rest is.

        Args:
            environment: versions and device of the run.
            what: what was profiled, in words.
        """
        assert self._running is not None
        profiler, self._running = self._running, None
        facts = {"date": time.strftime("%Y-%m-%d"), **environment}
        try:
            result = profiler.result(self._profiled, facts, trace=self.folder / "trace.json", what=what)
        except RuntimeError as error:
            return [f"no profile: {error}"]
        result.save(self.folder)
        files = ", ".join(PROFILE_FILES)
        return [*result.text(most=10).splitlines(), f"the whole profile: {files} in {self.folder}"]

    def close(self) -> list[str]:
        """Stop after an error; return what to say where the run was too short for a profile."""
        if self._running is not None:
            self._running.stop()
            self._running = None
        if self.updates and not self._profiled > 0:
            return [f"no update was profiled: the first {self.preparing} prepare, and none came after them"]
        return []


def covered(spans: Iterable[Span]) -> float:
    """Microseconds in which at least one of the spans runs."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


_Found = tuple[dict[str, tuple[int, float]], dict[str, int], float]


def _device_events(events: list[Any]) -> _Found:
    """Kernels with calls and milliseconds, launch calls, and busy milliseconds of a GPU."""
    kernels: dict[str, tuple[int, float]] = {}
    launches: dict[str, int] = {}
    spans = []
    for event in events:
        span = Span(event.time_range.start, event.time_range.end)
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False):
            spans.append(span)
            calls, ms = kernels.get(event.name, (0, 0.0))
            kernels[event.name] = (calls + 1, ms + (span.end - span.start) / 1e3)
        elif event.name.startswith(LAUNCHES):
            launches[event.name] = launches.get(event.name, 0) + 1
    return kernels, launches, covered(spans) / 1e3


def _operators(events: list[Any]) -> _Found:
    """Operators with calls and own milliseconds, their outermost calls, and busy milliseconds of a CPU."""
    operators: dict[str, tuple[int, float]] = {}
    outermost = []
    for event in events:
        if event.device_type != DeviceType.CPU:
            continue
        calls, ms = operators.get(event.name, (0, 0.0))
        operators[event.name] = (calls + 1, ms + event.self_cpu_time_total / 1e3)
        if event.cpu_parent is None:
            outermost.append(Span(event.time_range.start, event.time_range.end))
    return operators, {"outermost operators": len(outermost)}, covered(outermost) / 1e3
