"""The machine: versions, clocks, rates, what a launch costs; the compiled library; ``fastamr tune``."""

from __future__ import annotations

import importlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.device_clock import copy_bandwidth, device_seconds
from fastamr import native
from fastamr.benchmarking.machine import clocks, environment, known_peak, matmul_rate
from fastamr.benchmarking.step import build_fast_step
from fastamr.benchmarking.timing import wait
from fastamr.devices import versions

from .common import Context, replayed, say, told

_NODES, _PEAK_SIZE = 200, 8192
# A back end may take this long over one kind of call.
_TUNE_SECONDS = 20.0
_PACKAGES = ("triton", "numpy", "pytest", "pytest-xdist", "jsonargparse")


def machine(context: Context) -> None:
    """Each of the following, whatever becomes of the others."""
    for check in (_versions, _copies, _product, _nodes):
        with told(check=check.__name__.strip("_")):
            check(context)


def build(context: Context) -> None:
    """Have the extension for the device ready: compiled now, unless it lies where the loader looks."""
    began = time.monotonic()
    device = context.device.type
    reason = native.why_not("cuda" if device == "cuda" else "cpu")
    print(f"{device} extension, {time.monotonic() - began:.1f} s: {reason or native.status(device)}")
    sys.exit(reason is not None)


def _versions(context: Context) -> None:
    facts = environment(context.device) | versions(*_PACKAGES)
    if context.on_gpu:
        properties = torch.cuda.get_device_properties(context.device)
        facts |= {
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "l2_bytes": properties.L2_cache_size,
            "driver": _driver(),
        }
    facts |= {"nvcc": shutil.which("nvcc"), "compute_sanitizer": shutil.which("compute-sanitizer")}
    say(
        **facts,
        clocks_idle=clocks(context.device),
        text=f"{facts['device_name']}, torch {facts['torch']}, Triton {facts['triton']}, driver {facts.get('driver')}",
    )


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()[
            0
        ]
    except (OSError, IndexError, subprocess.SubprocessError):
        return None


def _copies(context: Context) -> None:
    rate = copy_bandwidth(context.device)
    say(copy_bytes_per_second=rate, text=f"copies {rate / 1e12:.2f} TB/s, read and written")


def _product(context: Context) -> None:
    size = 256 if context.small else _PEAK_SIZE
    rate = matmul_rate(context.device, context.dtype, size=size)
    peak, now = known_peak(context.device), clocks(context.device)
    share = "" if peak is None else f", {rate / peak:.0%} of the data sheet"
    at = "" if now is None else f", right after it {now['clocks.sm']:.0f} MHz and {now['power.draw']:.0f} W"
    say(
        size=size,
        dtype=str(context.dtype),
        flops=rate,
        clocks_busy=now,
        text=f"a product of {size}^3: {rate / 1e12:.1f} TFLOP/s{share}{at}",
    )


def _nodes(context: Context) -> None:
    """Additions to one number, each waiting for the one before: what a node costs beside its work."""
    value = torch.zeros(1, device=context.device)

    def chain() -> None:
        for _ in range(_NODES):
            value.add_(1.0)

    replay = replayed(chain, context)
    eager = _host_seconds(chain, context) / _NODES * 1e6
    found = {"nodes": _NODES, "eager_us": eager}
    text = f"a launch {eager:.2f} us eagerly"
    if context.on_gpu:
        node = device_seconds(replay, context.device, flush=False) / _NODES * 1e6
        launch = _host_seconds(replay, context, waits=False) * 1e6
        found |= {"node_us": node, "replay_launch_us": launch}
        text += f", {node:.2f} us as a node of a graph, whose launch takes the host {launch:.0f} us"
    say(**found, text=text)


def _host_seconds(function: Callable[[], object], context: Context, *, waits: bool = True) -> float:
    """Median wall-clock time of a call, with the wait for the device or without."""
    times = []
    for _ in range(20):
        wait(context.device)
        began = time.perf_counter()
        function()
        if waits:
            wait(context.device)
        times.append(time.perf_counter() - began)
    wait(context.device)
    return statistics.median(times)


def tune(context: Context) -> None:
    """What ``fastamr tune --quick`` does, without the packages of its command line; ``auto`` reads the record."""
    try:
        tuning = importlib.import_module("fastamr.tuning")
    except ImportError as error:
        return say(skipped=f"fastamr tune does not run here: {error}", text="no fastamr tune here")
    began = time.monotonic()
    sequences = context.sequences
    step: Any = build_fast_step("amr", context.architecture, context.device, sequences=sequences)
    options = tuning.TuneOptions(quick=True, limit=_TUNE_SECONDS)
    found = tuning.tune(step.calls(), step.basis(), options=options, say=lambda line: say(said=line))
    record, path = tuning.saved(found)
    for each in record.classes:
        say(shape=each.shape.label, backend=each.backend, said=each.line())
    failed = [(shape.label, name, why) for shape, name, why in record.failures()]
    for label, name, why in failed:
        say(shape=label, backend=name, ok=False, error=why, text=f"{label}, {name}: {why}")
    seconds = time.monotonic() - began
    text = f"{len(record.classes)} kinds of call in {seconds:.0f} s, {len(failed)} back ends failed; record {path}"
    return say(record=str(path), digest=record.digest, seconds=seconds, text=text)
