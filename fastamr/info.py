"""What is installed, which devices there are, and which back end each op would use: the text for a bug report."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import nullcontext

import torch

from . import native, ops
from .devices import processor, versions
from .host.processors import described
from .native import cache
from .ops.common import tuned
from .ops.common.backends import Problem, choose
from .tables import aligned

_PACKAGES = (
    "triton",
    "numpy",
    "safetensors",
    "jsonargparse",
    "tensorboard",
    "mlflow-skinny",
    "wandb",
    "matplotlib",
    "scikit-learn",
    "onnx",
    "onnxruntime",
    "ninja",
)
_VARIABLES = (
    "FASTAMR_BACKEND",
    "FASTAMR_BUILD",
    "FASTAMR_TUNING",
    "FASTAMR_PRODUCTS",
    "OMP_NUM_THREADS",
    "GOMP_SPINCOUNT",
    "OMP_WAIT_POLICY",
)


def _tool_version(command: str) -> str:
    """Last line of ``command --version``, or that it is absent."""
    if shutil.which(command) is None:
        return "not found"
    run = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, timeout=20)
    lines = [line.strip() for line in run.stdout.splitlines() if line.strip()]
    return (lines[-1] if command == "nvcc" else lines[0]) if lines else "found, but prints no version"


def _devices() -> list[str]:
    unit = "matrix unit in use" if native.has_matrix_unit() else "no matrix unit in use"
    capability = torch.backends.cpu.get_cpu_capability()
    lines = [f"cpu: {processor()}, {torch.get_num_threads()} threads, {capability}, {unit}"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(
                f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
                f"compute capability {properties.major}.{properties.minor}"
            )
    else:
        built = torch.version.cuda or "no CUDA"
        lines.append(f"cuda: none (torch is built for {built}; torch.cuda.is_available() is false)")
    return lines


def _backends(device_type: str) -> list[str]:
    """One line per op: the back end in use, then the others with the reason why not."""
    lines = []
    for op, table in ops.availability(device_type).items():
        try:
            used = choose(op, Problem(device_type, torch.float32))
        except (RuntimeError, ValueError) as error:
            used = f"error: {error}"
        others = [f"{name}: {reason or 'can run'}" for name, reason in table.items() if name != used]
        lines.append(f"{op:30} {used:12}" + (f" ({'; '.join(others)})" if others else ""))
    return [line.rstrip() for line in lines]


def _tuning(device_type: str) -> list[str]:
    """The record of ``fastamr tune`` that ``auto`` reads, each back end that failed there, and what was chosen."""
    try:
        found = tuned.tuning(device_type)
    except ValueError as error:
        return [f"error: {error}"]
    if found.record is None:
        return [f"no record: {found.why_none}"]
    record = found.record
    lines = [f"record {record.digest}, made {record.made}: {found.path}"]
    lines += [
        f"never taken by auto: {name} of {op} in {dtype}: {reason}"
        for (op, dtype), failed in found.failures.items()
        for name, reason in failed.items()
    ]
    return lines + [f"{each.shape.label}: {each.line()}" for each in record.classes]


def _cache() -> str:
    """The folder of what was built here, and how much that is."""
    size = sum(path.lstat().st_size for path in cache.files())
    folder = cache.cache_folder()
    reason = cache.why_not_private(folder) if folder.exists() else None
    state = (
        f"{size / 2**20:.1f} MiB; fastamr cache --clear empties it"
        if reason is None
        else f"not used: {reason}"
    )
    return f"{folder} ({state})"


def report(*, build: bool = False) -> str:
    """The whole report as text: versions, tools, devices, and each op's back ends.

    Args:
        build: compile the extension if that was not done yet; without it the report says so.
    """
    with nullcontext() if build else native.without_compiling():
        return _report()


def _report() -> str:
    found = [(name, version or "not installed") for name, version in versions(*_PACKAGES).items()]
    found += [("system", platform.platform())]
    found += [(tool, _tool_version(tool)) for tool in ("g++", "nvcc")]
    found += [("cpus", described())]
    found += [(name, os.environ.get(name, "not set")) for name in _VARIABLES]
    lines = [aligned(found, left=(0, 1)), "", "devices", *(f"  {line}" for line in _devices())]
    lines += ["", "compiled extension", *(f"  {name}: {native.status(name)}" for name in ("cpu", "cuda"))]
    lines += [f"  cache: {_cache()}"]
    for device_type in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        lines += ["", f"back ends on {device_type}", *(f"  {line}" for line in _backends(device_type))]
        lines += ["", f"tuning on {device_type}", *(f"  {line}" for line in _tuning(device_type))]
    return "\n".join(lines)
