"""Sums over a batch that lies in several processes, so that a loss means the same as in one process.

Outside of :func:`spread_over` nothing here communicates: a model that is called by hand, or by one process alone, sees
its own sequences only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .world import speaking

_processes = 1
_rows: tuple[int, int] | None = None


@contextlib.contextmanager
def spread_over(count: int) -> Iterator[None]:
    """Let what is computed inside be a part of a batch that lies in ``count`` processes, each of which is inside."""
    global _processes
    before, _processes = _processes, count
    try:
        yield
    finally:
        _processes = before


def processes() -> int:
    """Return how many processes the batch of this computation lies in; 1 outside of :func:`spread_over`."""
    return _processes


@contextlib.contextmanager
def rows_of_batch(first: int, count: int) -> Iterator[None]:
    """Let the rows of what is computed inside be those from ``first`` on of ``count`` rows in all processes."""
    global _rows
    before, _rows = _rows, (first, count)
    try:
        yield
    finally:
        _rows = before


def draw_rows(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Return random numbers for the rows of this process, which are those that one process alone would draw.

    Inside of :func:`rows_of_batch` the numbers of the whole batch are drawn, and those of the own rows returned; so
    the processes' generators, which begin alike, stay alike.

    Args:
        draw: returns numbers for that many rows.
        rows: of this process.
    """
    if _rows is None or _processes == 1:
        return draw(rows)
    first, count = _rows
    return draw(count)[first : first + rows]


def total(values: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes; the gradient flows back to all of them.

    Args:
        values: of one shape in all processes, on the device that the processes speak from.
    """
    return values if _processes == 1 else _Total.apply(values)


def share_of(count: Tensor) -> Tensor:
    """Return by what to multiply a mean over ``count`` values, so that the processes' mean is that over all values.

    Args:
        count: scalar, the values that this process counts.

    Returns:
        Scalar, float32; 1 for one process.
    """
    number = count.detach().double()
    return (_processes * number / total(number).clamp(min=1)).float()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in one collective for all of them.

    Args:
        tensors: floating, on one device; of the same shapes in all processes.
    """
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    with speaking():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    views = [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
    torch._foreach_copy_(list(tensors), views)


class _Total(torch.autograd.Function):
    """Sum over the processes. Each one's result enters each one's loss, so the gradient is a sum over them too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        result = values.detach().clone(memory_format=torch.contiguous_format)
        with speaking():
            dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        result = gradients[0].clone(memory_format=torch.contiguous_format)
        with speaking():
            dist.all_reduce(result)
        return result
