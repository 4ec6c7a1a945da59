"""What a call would launch on a GPU, without one.

Inside :func:`planned` every op chooses its back end as on that device, whatever tensors it is given, and a compiled
kernel's launch is noted instead of made; :func:`fastamr.kernels.launch.record` does the same for Triton kernels.
Results are not computed, so the tensors should hold no values: ``fastamr.benchmarking.nodes`` uses fake ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

# Process-wide, as the choice of back ends is.
_planned_for: str | None = None
_noted: list[str] = []


@contextmanager
def planned(device_type: str = "cuda") -> Iterator[list[str]]:
    """Choose as on a device inside a ``with`` block; gives the list of the compiled kernels that were to be launched.

    Args:
        device_type: for example ``"cuda"``; with every compiled extension, whether it is there or not.
    """
    global _planned_for, _noted
    before = _planned_for, _noted
    _planned_for, _noted = device_type, []
    try:
        yield _noted
    finally:
        _planned_for, _noted = before


def planned_device() -> str | None:
    """The device type that calls are planned for; None where they run."""
    return _planned_for


def device_type_of(tensor: Tensor) -> str:
    """The device type that a call with this tensor runs on, or is planned for."""
    return _planned_for or tensor.device.type


def note(kernel: str) -> None:
    """Write down the launch of a compiled kernel."""
    _noted.append(kernel)
