"""Low-precision copies of float32 parameters that the optimizer keeps up to date.

A parameter stays the float32 truth: it is what ``state_dict`` holds. A fused layer computes with
``working_weight(parameter, dtype)``; where the optimizer registered a copy, that is the copy which its last update
wrote, else a fresh cast. A copy that the parameter has left behind (``load_state_dict``, any in-place write) is never
returned: PyTorch's version counter tells.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ATTRIBUTE = "_fastamr_working_copy"


class _WorkingCopy(NamedTuple):
    copy: Tensor
    version: int


def register_working_copy(parameter: Tensor, copy: Tensor) -> None:
    """Say that ``copy`` now holds the parameter's numbers.

    Args:
        parameter: float32.
        copy: same shape and device, another dtype; kept by reference.

    Raises:
        ValueError: a copy of another shape or device.
    """
    if copy.shape != parameter.shape or copy.device != parameter.device:
        raise ValueError(
            f"copy is {tuple(copy.shape)} on {copy.device}, "
            f"expected {tuple(parameter.shape)} on {parameter.device}, as the parameter"
        )
    setattr(parameter, _ATTRIBUTE, _WorkingCopy(copy, parameter._version))


def working_weight(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the parameter in ``dtype``, without gradient: itself, the registered copy, or a cast.

    A registered copy that is out of date is brought up to date in place first.
    """
    detached = parameter.detach()
    if detached.dtype == dtype:
        return detached
    entry: _WorkingCopy | None = getattr(parameter, _ATTRIBUTE, None)
    if entry is None or entry.copy.dtype != dtype or entry.copy.device != parameter.device:
        return detached.to(dtype)
    if entry.version != parameter._version:
        entry.copy.copy_(detached)
        register_working_copy(parameter, entry.copy)
    return entry.copy
