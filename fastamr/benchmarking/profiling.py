"""Where the time of a step goes: kernels, launches and gaps, by ``torch.profiler``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ..files import replaced
from .machine import environment
from .timing import wait

# Calls by which the host gives the GPU work, as they are named in a trace.
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")


class Span(NamedTuple):
    """A stretch of time, microseconds."""

    start: float
    end: float


@dataclass(frozen=True)
class KernelRow:
    """One kernel (GPU) or operator (CPU) of the profile.

    Attributes:
        name: of the kernel or operator.
        calls: in a step.
        ms: in a step, without what it calls.
        share: of the time in all kernels.
    """

    name: str
    calls: float
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What a step consists of; all times and counts are for one step.

    Attributes:
        environment: versions, device, date.
        what: what was profiled, in words.
        steps: profiled steps.
        wall_ms: from the first to the last moment of the steps. The profiler slows them.
        busy_ms: of that, at least one kernel (CPU: operator) ran.
        gap_ms: the rest: on a GPU launches that came too late, on a CPU Python between operators.
        launches: calls that gave the GPU work, by name; on a CPU the outermost operator calls.
        kernels: by falling time.
    """

    environment: dict[str, Any]
    what: str
    steps: int
    wall_ms: float
    busy_ms: float
    gap_ms: float
    launches: dict[str, float]
    kernels: list[KernelRow]


def profile_step(
    step: Callable[[], object], device: torch.device, *, steps: int, warmup: int, trace: Path, what: str = ""
) -> Profile:
    """Profile some calls of a step and write their Chrome trace.

    Args:
        step: what to call.
        device: where it runs.
        steps: profiled calls, at least 1.
        warmup: calls before, not profiled.
        trace: the file for the trace, for chrome://tracing or Perfetto.
        what: goes into the result.

    Raises:
        ValueError: no step.
        RuntimeError: the profiler recorded no kernel.
    """
    if steps < 1 or warmup < 0:
        raise ValueError(f"steps={steps} and warmup={warmup}: expected at least 1 and at least 0")
    facts = environment(device)
    for _ in range(warmup):
        step()
    wait(device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as profiler:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        wait(device)
        seconds = time.perf_counter() - began
    with replaced(trace) as temporary:
        profiler.export_chrome_trace(str(temporary))
    events = list(profiler.events() or [])
    if device.type == "cuda":
        kernels, launches, busy = _device_events(events)
    else:
        kernels, launches, busy = _operators(events)
    if not kernels:
        raise RuntimeError(
            "the profiler recorded no kernel: is another profiler attached, or CUPTI not installed?"
        )
    total = sum(span_ms for _, span_ms in kernels.values())
    rows = [
        KernelRow(name, calls / steps, ms / steps, ms / total if total else 0.0)
        for name, (calls, ms) in sorted(kernels.items(), key=lambda item: -item[1][1])
    ]
    wall = seconds * 1e3
    per_step = {name: count / steps for name, count in sorted(launches.items())}
    return Profile(facts, what, steps, wall / steps, busy / steps, (wall - busy) / steps, per_step, rows)


def covered(spans: Iterable[Span]) -> float:
    """Microseconds in which at least one of the spans runs."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def as_text(result: Profile, *, most: int = 30) -> str:
    """The table for a terminal.

    Args:
        result: of :func:`profile_step`.
        most: rows to show.
    """
    facts = result.environment
    kind = "kernel" if facts["device"] == "cuda" else "operator"
    lines = [
        f"{result.what}: {result.steps} steps on {facts['device_name']}, {facts['date']}, torch {facts['torch']}",
        f"one step under the profiler: {result.wall_ms:.2f} ms, of which {result.busy_ms:.2f} ms busy and "
        f"{result.gap_ms:.2f} ms gaps",
        "launches a step: " + ", ".join(f"{count:g} {name}" for name, count in result.launches.items()),
        "",
        f"{'share':>7} {'ms':>9} {'calls':>7}  {kind}",
    ]
    lines += [f"{row.share:7.1%} {row.ms:9.3f} {row.calls:7g}  {row.name}" for row in result.kernels[:most]]
    rest = result.kernels[most:]
    if rest:
        share, ms = sum(row.share for row in rest), sum(row.ms for row in rest)
        lines.append(f"{share:7.1%} {ms:9.3f} {sum(row.calls for row in rest):7g}  {len(rest)} more")
    return "\n".join(lines)


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
