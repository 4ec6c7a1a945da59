from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch.autograd import DeviceType

from fastamr.training.update import profiling
from fastamr.training.update.profiling import Span, covered


def event(name: str, start: float, end: float, device: DeviceType, **more: Any) -> SimpleNamespace:
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(name=name, time_range=span, device_type=device, **more)


def test_covered_time_of_overlapping_spans() -> None:
    assert covered([]) == 0
    assert covered([Span(5, 7), Span(0, 2)]) == 4
    assert covered([Span(0, 10), Span(2, 3), Span(8, 12), Span(20, 21)]) == 13


def test_events_of_a_gpu_are_counted() -> None:
    """Kernels by name, launches of the host, and time that overlapping kernels cover once."""
    gpu, cpu = DeviceType.CUDA, DeviceType.CPU
    events = [
        event("gemm", 0, 1000, gpu),
        event("gemm", 500, 2000, gpu),
        event("Memset (Device)", 3000, 3500, gpu),
        event("ProfilerStep#1", 0, 9000, gpu, is_user_annotation=True),
        event("cudaLaunchKernelExC", 0, 5, cpu),
        event("cudaGraphLaunch", 5, 9, cpu),
        event("aten::mm", 0, 5, cpu),
    ]
    kernels, launches, busy = profiling._device_events(events)
    assert kernels == {"gemm": (2, pytest.approx(2.5)), "Memset (Device)": (1, pytest.approx(0.5))}
    assert launches == {"cudaLaunchKernelExC": 1, "cudaGraphLaunch": 1}
    assert busy == pytest.approx(2.5)
