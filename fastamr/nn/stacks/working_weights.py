"""Low-precision copies of float32 parameters that the optimizer keeps up to date.

A parameter stays the float32 truth: it is what ``state_dict`` holds. A fused layer computes with
``working_weight(parameter, dtype)``; where the optimizer registered a copy, that is the copy which its last update
wrote, else a fresh cast. A copy that the parameter has left behind (``load_state_dict``, any in-place write) is never
returned: PyTorch's version counter shows it, and for ``parameter.data = ...`` the address. Writes into
``parameter.data`` stay unseen, as autograd does not see them either: write under ``torch.no_grad()`` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_ATTRIBUTE = "_fastamr_working_copy"


class _WorkingCopy(NamedTuple):
    copy: Tensor
    version: int
    address: int


def register_working_copy(parameter: Tensor, copy: Tensor) -> None:
    """Say that ``copy`` now holds the parameter's values.

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
    setattr(parameter, _ATTRIBUTE, _WorkingCopy(copy, parameter._version, parameter.data_ptr()))


def _is_true(entry: _WorkingCopy, parameter: Tensor) -> bool:
    # A traced parameter has no address.
    moved = not torch.compiler.is_compiling() and entry.address != parameter.data_ptr()
    return entry.version == parameter._version and not moved


def refresh_working_copy(parameter: Tensor) -> bool:
    """Bring the parameter's registered copy up to date in place, if it has one that is not.

    Args:
        parameter: float32.

    Returns:
        Whether the copy was out of date.
    """
    entry: _WorkingCopy | None = getattr(parameter, _ATTRIBUTE, None)
    if entry is None or _is_true(entry, parameter):
        return False
    if entry.copy.device != parameter.device or entry.copy.shape != parameter.shape:
        # Another tensor was put into parameter.data: the copy belongs to the one before.
        delattr(parameter, _ATTRIBUTE)
        return False
    with torch.no_grad():
        entry.copy.copy_(parameter)
    register_working_copy(parameter, entry.copy)
    return True


def joined_weights(parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Several parameters in ``dtype``, one below the other, without gradient.

    Args:
        parameters: alike but for their first dimension.
        dtype: of the result.

    Returns:
        ``(sum of the first dimensions, ...)``: where the registered copies lie one behind the other in memory, as the
        optimizer lays those of a stack, a view of them, else a new tensor.
    """
    parts = [working_weight(parameter, dtype) for parameter in parameters]
    first, end = parts[0], parts[0].storage_offset()
    for part in parts:
        same = part.untyped_storage()._cdata == first.untyped_storage()._cdata and part.is_contiguous()
        if not same or part.storage_offset() != end or part.shape[1:] != first.shape[1:]:
            return torch.cat(parts)
        end += part.numel()
    return first.as_strided((sum(len(part) for part in parts), *first.shape[1:]), first.stride())


def working_weight(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the parameter in ``dtype``, without gradient: itself, the registered copy, or a cast.

    A registered copy that is out of date is brought up to date in place first.
    """
    detached = parameter.detach()
    if detached.dtype == dtype:
        return detached
    entry: _WorkingCopy | None = getattr(parameter, _ATTRIBUTE, None)
    if entry is None or entry.copy.dtype != dtype:
        return detached.to(dtype)
    refresh_working_copy(parameter)
    return entry.copy if hasattr(parameter, _ATTRIBUTE) else detached.to(dtype)
