"""Times and peak memory of a repeated step."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(
    function: Callable[[], object], device: torch.device, *, rounds: int, warmup: int = 0
) -> list[float]:
    """Seconds of each of ``rounds`` calls: between CUDA events on a GPU, wall clock on a CPU.

    Args:
        function: what to time.
        device: where it runs.
        rounds: timed calls.
        warmup: calls before, not counted.
    """
    for _ in range(warmup):
        function()
    if device.type != "cuda":
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return times
    with torch.cuda.device(device):
        torch.cuda.synchronize()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 1)]
        events[0].record()
        for event in events[1:]:
            function()
            event.record()
        events[-1].synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in itertools.pairwise(events)]


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class TimeLeft:
    """The time that jobs of known sizes still take, one after the other, at the pace of what was done.

    Args:
        sizes: of the jobs, in any unit.
    """

    def __init__(self, sizes: Sequence[float]) -> None:
        self._sizes, self._done, self._began = list(sizes), 0, time.perf_counter()
        self._pace: float | None = None

    def learn(self, seconds: float, size: float) -> None:
        """Note how long a part of the first job took; later ones go by the jobs that are done."""
        if self._done == 0:
            self._pace = seconds / size

    def done(self) -> None:
        """Count a job as done."""
        self._done += 1
        self._pace = (time.perf_counter() - self._began) / sum(self._sizes[: self._done])

    def seconds(self) -> float | None:
        """Seconds until all jobs are done; None before anything is known."""
        if self._pace is None:
            return None
        running = time.perf_counter() - self._began if self._done == 0 else 0.0
        return max(0.0, self._pace * sum(self._sizes[self._done :]) - running)


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``12.3 s``, ``4.5 minutes``, ``7.0 hours``, ``29.9 days``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    for unit, size, most in (("minutes", 60.0, 7200.0), ("hours", 3600.0, 3 * 86400.0)):
        if seconds < most:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:,.1f} days"


class PeakMemory:
    """The largest memory in use since the last :meth:`restart`, in bytes.

    On a GPU what PyTorch's allocator held at the most (``max_memory_allocated``). On a CPU the growth of the process's
    resident memory over what it was when the object was made; only Linux tells, elsewhere :meth:`read` gives None.

    Args:
        device: a GPU, or the CPU for the memory of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        release()
        self._before = _status("VmRSS") if device.type != "cuda" else 0
        self.restart()

    def restart(self) -> None:
        """Forget the peak so far."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self._before is not None:
            try:
                _CLEAR.write_text(
                    "5", encoding="ascii"
                )  # resets the peak of the resident memory, see proc(5)
            except OSError:
                self._before = None

    def read(self) -> int | None:
        """The peak in bytes, or None where the system does not say."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = _status("VmHWM")
        return None if peak is None or self._before is None else max(0, peak - self._before)


def release() -> None:
    """Free what only reference cycles still hold, then :func:`give_back`."""
    gc.collect()
    give_back()


def give_back() -> None:
    """Give freed memory back to the system, so that it does not count for what comes next."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if platform.system() == "Linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(found[0]) * 1024 if found else None
