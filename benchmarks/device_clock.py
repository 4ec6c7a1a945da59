"""Times on a GPU without the launch overhead: CUDA graph replays between events, with a warm and with a flushed L2."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch

from fastamr.training.update.recording import CudaRecorder
from fastamr.tuning.clock import device_seconds

__all__ = ["captured", "copy_bandwidth", "device_seconds"]


@functools.cache
def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of a large copy on this device: what the byte limits are counted with."""
    size = (1 << 30) if device.type == "cuda" else (1 << 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    if device.type == "cuda":
        seconds = device_seconds(lambda: target.copy_(source), device, flush=False)
    else:
        target.copy_(source)
        start = time.perf_counter()
        for _ in range(5):
            target.copy_(source)
        seconds = (time.perf_counter() - start) / 5
    return 2 * size / seconds


def captured(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """``function`` as the replay of a CUDA graph.

    Raises:
        RuntimeError: the function cannot be captured, for example because it waits for the device.
    """
    recorder = CudaRecorder(device)
    for _ in range(3):
        recorder.run(function)
    recorder.record(function)
    return recorder.replay
