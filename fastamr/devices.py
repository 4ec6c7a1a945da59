"""Devices by name, and the machine and software that a number holds for."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .version import __version__

# What a CPU multiplies matrices of a dtype with, by the names of torch.cpu.get_capabilities: x86, then ARM.
_PRODUCTS = {
    torch.bfloat16: ("amx_bf16", "avx512_bf16", "avx10_2", "bf16", "sve_bf16"),
    torch.float16: ("amx_fp16", "avx512_fp16", "avx10_2", "fp16_arith"),
}
_WORKSPACE, _WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")


def pick_device(name: str) -> torch.device:
    """Return a device by name; ``auto`` is the GPU where there is one.

    Raises:
        ValueError: no such device, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason}; expected auto, cpu or cuda") from None


@contextlib.contextmanager
def deterministic(wanted: bool, device: str = "auto") -> Iterator[None]:
    """Compute the same bits in every run inside a ``with`` block: same seed, machine, versions and threads.

    PyTorch then takes algorithms whose sums have one order, or raises where an operation has none; cuDNN does not
    choose by timing, and the library's own kernels are not tuned by timing (``FASTAMR_AUTOTUNE``). cuBLAS gets
    workspaces of one size, for the rest of the process: it reads ``CUBLAS_WORKSPACE_CONFIG`` when it starts.

    Args:
        wanted: whether to; False changes nothing.
        device: where the work is done; on ``cpu`` cuBLAS takes no part.

    Raises:
        ValueError: cuBLAS may have started with other workspaces, or the variable asks for them.
    """
    if not wanted:
        yield
        return
    if device != "cpu":
        _fix_workspaces()
    cudnn, before = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    warns, held = (
        torch.is_deterministic_algorithms_warn_only_enabled(),
        (cudnn.benchmark, cudnn.deterministic),
    )
    torch.use_deterministic_algorithms(True)
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        cudnn.benchmark, cudnn.deterministic = held


def _fix_workspaces() -> None:
    """Ask cuBLAS for workspaces of one size, as long as it has not started."""
    given, way_on = (
        os.environ.get(_WORKSPACE),
        f"export {_WORKSPACE}={_WORKSPACES[0]} before the process starts",
    )
    if given is None and torch.cuda.is_initialized():
        raise ValueError(f"deterministic came after CUDA had started, without {_WORKSPACE}: {way_on}")
    if given is not None and given not in _WORKSPACES:
        raise ValueError(
            f"{_WORKSPACE}={given!r} is not deterministic, expected {' or '.join(_WORKSPACES)}: {way_on}, or unset it"
        )
    os.environ[_WORKSPACE] = given or _WORKSPACES[0]


def package_version(name: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(*packages: str) -> dict[str, str | None]:
    """Return the versions of fastamr, Python, PyTorch and of other packages by name; None for one that is missing."""
    own = {"fastamr": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    return {**own, **{name: package_version(name) for name in packages}}


def processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def processor_features() -> Mapping[str, Any]:
    """Return what PyTorch knows of the processor's instructions, by name; True where it has them."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    known = torch.cpu  # before PyTorch listed them
    return {
        "avx512_bf16": known._is_avx512_bf16_supported(),
        "amx_bf16": known._is_amx_tile_supported(),
    }


def missing_instructions(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why a device has to emulate products of a dtype, or None where it has instructions for them.

    Args:
        device: a CPU or a GPU.
        dtype: of the factors; only 16-bit dtypes can lack instructions.
    """
    name = str(dtype).removeprefix("torch.")
    if device.type == "cuda":
        if dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            return f"no instructions for {name} products: they come with compute capability 8.0"
        return None
    wanted = _PRODUCTS.get(dtype, ())
    features = processor_features()
    if not wanted or any(features.get(feature, False) for feature in wanted):
        return None
    return f"no instructions for {name} products on this processor (it has none of {', '.join(wanted)})"


def device_name(device: torch.device) -> str:
    """Return the device in words; a CPU's name carries the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {processor()}, {torch.get_num_threads()} threads"


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and device, as every report carries them."""
    return {
        **versions(),
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
    }
