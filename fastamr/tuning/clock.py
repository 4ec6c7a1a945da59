"""Times of calls side by side: best of interleaved rounds on a CPU, replays of a CUDA graph on a GPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping

import torch

_FLUSH_BYTES = 256 << 20
_WARMUP = 3
_LEAST_ROUNDS = 5


def best_seconds(calls: Mapping[str, Callable[[], object]], budget: float) -> dict[str, float]:
    """The shortest wall time of each call on a CPU; the calls take turns, so that all meet the same machine.

    Args:
        calls: by name.
        budget: seconds for each; no call is made fewer than five times after the first two.
    """
    for call in calls.values():
        call()
        call()
    best, end, rounds = dict.fromkeys(calls, math.inf), time.perf_counter() + budget * len(calls), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
        rounds += 1
    return best


def captured(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """``function`` as a CUDA graph's replay, or itself where it cannot be captured, as when it waits for the GPU."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP):
            function()
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            function()
    except RuntimeError:
        return function
    return graph.replay


def device_seconds(
    function: Callable[[], object], device: torch.device, *, flush: bool, rounds: int = 30
) -> float:
    """Median time on the device between two events around ``function``.

    Args:
        function: enqueues the work; a graph's replay leaves no launch overhead in the time.
        device: a GPU.
        flush: overwrite the L2 cache before each call.
        rounds: timed calls, after 5 that are not.
    """
    with torch.cuda.device(device):
        scratch = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device=device)
        times = []
        for number in range(rounds + 5):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            if flush:
                scratch.zero_()
            start.record()
            function()
            end.record()
            end.synchronize()
            if number >= 5:
                times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)
