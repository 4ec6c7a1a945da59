"""The rungs of ``fastamr bench ladder``: one training step, from the public code of SkeletonMAE to fastamr's own.

Every rung is checked against float64 before it is timed. On a CPU what it has no instructions for is skipped, and what
takes long; ``fastamr bench ladder`` has all of them, with table, ratios and chart. The run ends with the speed-ups.
"""

from __future__ import annotations

import pytest
import torch

from fastamr.benchmarking import RUNGS, LadderOptions, ntu_sized
from fastamr.benchmarking.cost import CONVENTION, step_flops
from fastamr.benchmarking.ladder import Row, checked_step
from fastamr.benchmarking.machine import known_peak
from fastamr.benchmarking.rungs import Rung, why_not
from fastamr.benchmarking.timing import PeakMemory

from .conftest import Clock

# A step of SkeletonMAE as released takes seconds on a CPU: a run of all benchmarks has it in one precision.
LONG_ON_A_CPU = ("mae-tf32", "mae-amp")
_times: dict[tuple[str, str], float] = {}


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_rung(rung: Rung, device: torch.device, clock: Clock) -> None:
    on_cpu = device.type == "cpu"
    reason = why_not(rung, device, named=False)
    if reason is not None or (on_cpu and rung.name in LONG_ON_A_CPU and not clock.every_case):
        pytest.skip(reason or "takes long on a CPU: run with --every-case, or fastamr bench ladder")
    options = LadderOptions(rounds=3 if on_cpu else None).on(device)
    assert options.sequences is not None
    assert options.rounds is not None
    assert options.warmup is not None
    row = Row(rung.name, rung.heading(device), rung.model, rung.fast, rung.is_released)
    memory = PeakMemory(device)
    step = checked_step(rung, row, options, ntu_sized(options.sequences).to(device), memory)
    median = clock(
        step,
        "pre-training step",
        [options.sequences, step.model.frames, step.model.config.joints, step.model.config.channels],
        rung.precision_on(device),
        "fastamr" if rung.fast else rung.attention,
        rounds=options.rounds,
        warmup=options.warmup,
        rung=row.title,
        rung_name=rung.name,
        loss_error=row.error,
        prepare_seconds=row.prepare_seconds,
    )
    _times[device.type, rung.name] = median
    flops, peak = step_flops(step.model, options.sequences), known_peak(device)
    base = _times.get((device.type, "mae-fp32"))
    clock.benchmark.extra_info.update(
        sequences_per_second=round(options.sequences / median, 2),
        tflops=round(flops / median / 1e12, 4),
        tflops_count=CONVENTION,
        mfu=None if peak is None else round(flops / median / peak, 4),
        speedup_against_released=None if base is None else round(base / median, 2),
    )
    if rung.compiled:
        torch.compiler.reset()
