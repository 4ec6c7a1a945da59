"""The profile of a step that is built for it; :mod:`fastamr.training.update.profiling` does the work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..training.update.profiling import Profile, UpdateProfiler
from .machine import environment


def profile_step(
    step: Callable[[], object],
    device: torch.device,
    *,
    updates: int,
    warmup: int,
    trace: Path,
    what: str = "",
) -> Profile:
    """Profile some calls of a step and write their Chrome trace.

    Args:
        step: what to call.
        device: where it runs.
        updates: profiled calls, at least 1.
        warmup: calls before, not profiled.
        trace: the file for the trace, for chrome://tracing or Perfetto.
        what: goes into the result.

    Raises:
        ValueError: no call.
        RuntimeError: the profiler recorded no kernel.
    """
    if updates < 1 or warmup < 0:
        raise ValueError(f"updates={updates} and warmup={warmup}: expected at least 1 and at least 0")
    facts = environment(device)
    for _ in range(warmup):
        step()
    profiler = UpdateProfiler(device)
    profiler.start()
    for _ in range(updates):
        step()
    profiler.stop()
    return profiler.result(updates, facts, trace=trace, what=what)
