"""Whether tensors that an op writes into share memory: then the result would depend on the order of the writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

# Steps of the exact test, which only tensors interleaved in one buffer need.
_MOST_WORK = 100_000


def check_apart(written: Mapping[str, Tensor | None], read: Mapping[str, Tensor | None]) -> None:
    """Raise unless every written tensor has memory of its own. Nothing here waits for the device.

    Args:
        written: tensors by name that an op writes into; None = absent.
        read: those that it reads.

    Raises:
        ValueError: elements of one written tensor, or of it and another tensor, share memory.
    """
    if torch.compiler.is_compiling():
        return
    targets = [
        (name, value, _extent(value))
        for name, value in written.items()
        if value is not None and _is_real(value)
    ]
    others = [
        (name, value, _extent(value)) for name, value in read.items() if value is not None and _is_real(value)
    ]
    for place, (name, value, (begin, end)) in enumerate(targets):
        if _overlaps_itself(value):
            raise ValueError(
                f"{name} has strides {value.stride()}: its elements share memory, expected one place each"
            )
        for other_name, other, (other_begin, other_end) in (*targets[place + 1 :], *others):
            if begin < other_end and other_begin < end and _share(value, other):
                raise ValueError(f"{name} shares memory with {other_name}: pass a tensor of its own")


_last: tuple[int, ...] = ()


def check_many_apart(
    written: Sequence[tuple[str, Sequence[Tensor]]], read: Sequence[tuple[str, Sequence[Tensor]]]
) -> None:
    """Do the same for lists of hundreds of tensors, by name: one look at their addresses where none interleave.

    The tensors to write into that were looked at last are not looked at again: an optimizer's are the same each time.

    Raises:
        ValueError: as :func:`check_apart`.
    """
    global _last
    objects = tuple(id(value) for _, values in written for value in values)
    if objects == _last:
        return
    targets, others = (
        [value for _, values in lists for value in values if _is_real(value)] for lists in (written, read)
    )
    if not targets:
        return
    extents = np.array(sorted(map(_extent, targets)), dtype=np.uint64)
    begins, ends = extents.T
    apart = bool((ends[:-1] <= begins[1:]).all()) and not any(map(_overlaps_itself, targets))
    if apart and others:
        first, last = np.array([_extent(value) for value in others], dtype=np.uint64).T
        # As many written tensors end before it begins as begin before it ends.
        apart = bool((np.searchsorted(ends, first, "right") == np.searchsorted(begins, last, "left")).all())
    if not apart:
        named = [
            {f"{name}[{place}]": value for name, values in lists for place, value in enumerate(values)}
            for lists in (written, read)
        ]
        check_apart(*named)
    _last = objects


def _is_real(value: Tensor) -> bool:
    return value.numel() > 0 and not isinstance(value, FakeTensor) and not value.is_meta


def _extent(value: Tensor) -> tuple[int, int]:
    begin = value.data_ptr()
    if value.is_contiguous():
        return begin, begin + value.nbytes
    reach = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    return begin, begin + (reach + 1) * value.itemsize


def _overlaps_itself(value: Tensor) -> bool:
    """Whether two elements may have one address: by ascending stride, a step must lead past all steps before it."""
    if value.is_contiguous():
        return False
    reach = 1
    for stride, size in sorted(zip(value.stride(), value.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return True
            reach += (size - 1) * stride
    return False


class _Layout:
    """Where a tensor's elements lie, as numpy wants it: no memory is read, which may be a GPU's."""

    def __init__(self, value: Tensor) -> None:
        self.__array_interface__ = {
            "data": (value.data_ptr(), True),
            "shape": tuple(value.shape),
            "strides": tuple(stride * value.itemsize for stride in value.stride()),
            "typestr": f"|V{value.itemsize}",
            "version": 3,
        }


def _share(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors whose extents overlap share an element; what takes too long to tell counts as sharing."""
    try:
        return np.shares_memory(np.asarray(_Layout(first)), np.asarray(_Layout(second)), max_work=_MOST_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
