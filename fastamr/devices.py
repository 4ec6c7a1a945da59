"""Devices by name, and the machine and software that a number holds for."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

from .version import __version__


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
