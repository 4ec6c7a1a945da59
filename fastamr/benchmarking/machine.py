"""The machine that numbers hold for: names, versions, date, clocks, and how fast it can multiply."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from typing import Any

import torch

from ..devices import environment as describe
from ..host import host_cpus

# Dense 16-bit products with float32 accumulation, FLOP/s, from NVIDIA's data sheets (without sparsity). The longest
# name that the device's name begins with counts.
PEAKS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA GeForce RTX 4090": 165e12,
}

_BUSY = 0.5
_CLOCKS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


def known_peak(device: torch.device) -> float | None:
    """Dense 16-bit FLOP/s of the device's data sheet, or None for a device that :data:`PEAKS` does not list."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return peak_of(name)


def peak_of(name: str) -> float | None:
    """The entry of :data:`PEAKS` that fits a device's name best, or None."""
    fitting = [known for known in PEAKS if name.startswith(known)]
    return PEAKS[max(fitting, key=len)] if fitting else None


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, device and date, as every report carries them."""
    return {
        **describe(device),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "load": load(),
        "date": time.strftime("%Y-%m-%d"),
        "time": time.strftime("%H:%M:%S%z"),
    }


def load() -> float | None:
    """Processes that want to run for each core, mean of the last minute; None where the system does not say."""
    if not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0] / host_cpus()


def busy_warning() -> str | None:
    """Say that times will not hold where other processes use the cores already; None on a quiet machine."""
    now = load()
    if now is None or now < _BUSY:
        return None
    alone = "" if torch.get_num_threads() == 1 else ", or with OMP_NUM_THREADS=1"
    return (
        f"other processes keep this machine busy ({now:.1f} want to run for each core): times will not hold; "
        f"measure on a quiet machine{alone}"
    )


def clocks(device: torch.device) -> dict[str, float] | None:
    """Clocks in MHz, power in W and temperature in C of a GPU at this moment, by ``nvidia-smi``; None where unknown."""
    if device.type != "cuda" or shutil.which("nvidia-smi") is None:
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", "-i", uuid, f"--query-gpu={','.join(_CLOCKS)}", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        values = [float(value) for value in run.stdout.strip().split(",")]
        return dict(zip(_CLOCKS, values, strict=True))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def matmul_rate(device: torch.device, dtype: torch.dtype, *, size: int | None = None) -> float:
    """FLOP/s of one large square product on this device, measured: the limit that charts draw.

    Args:
        device: where to measure.
        dtype: of the factors; float32 is measured without TF32.
        size: of the matrices; by default 8192 on a GPU and 2048 on a CPU.
    """
    from .timing import measure

    size = size or (8192 if device.type == "cuda" else 2048)
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty_like(left)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        seconds = measure(lambda: torch.mm(left, right, out=out), device, rounds=7, warmup=2)
    finally:
        torch.set_float32_matmul_precision(before)
    return 2.0 * size**3 / statistics.median(seconds)
