"""Checks shared by the ops on flat rows, which a training step calls a hundred times: one quick look per argument."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.backends import Problem
from ..common.checks import FLOATS, check_device, check_shape, check_tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of products' sums, statistics and column sums: float32, or float64 for float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_rows(name: str, value: Tensor, form: str) -> None:
    """Raise unless ``value`` is a floating matrix; the other arguments are held against it by :func:`check_operand`."""
    check_tensor(name, value, 2, form, FLOATS)
    check_operand(name, value, tuple(value.shape), form, (value.dtype,), value, name)


def check_operand(
    name: str,
    value: Tensor,
    shape: tuple[int, ...],
    form: str,
    dtypes: tuple[torch.dtype, ...],
    like: Tensor,
    like_name: str,
) -> None:
    """Raise unless ``value`` is contiguous, of this shape and one of these dtypes, beside ``like``, and needs no grad.

    Args:
        name: the argument.
        value: what the caller passed.
        shape: what is expected.
        form: the shape in words.
        dtypes: the allowed ones.
        like: a checked argument, on whose device ``value`` must lie.
        like_name: its name.
    """
    if (
        isinstance(value, Tensor)
        and value.shape == shape
        and value.dtype in dtypes
        and value.device == like.device
        and value.is_contiguous()
        and not (value.requires_grad and torch.is_grad_enabled())
    ):
        return
    check_tensor(name, value, len(shape), form, dtypes)
    check_shape(name, value, shape, form)
    check_device(name, value, like.device, like_name)
    if not value.is_contiguous():
        raise ValueError(
            f"{name} has strides {value.stride()}: expected contiguous rows, call {name}.contiguous()"
        )
    raise RuntimeError(
        f"{name} requires a gradient and this op carries none: call it inside a torch.autograd.Function, which calls "
        "the matching backward, or under torch.no_grad()"
    )


def problem_of(like: Tensor, *refusals: str, **sizes: int) -> Problem:
    """The call as the back ends see it."""
    return Problem(like.device.type, like.dtype, (), sizes, refusals)


def row_problem(rows: Tensor, hidden: int, width: int, *refusals: str) -> Problem:
    """A call between rows of ``width`` and of ``hidden`` values, forward or backward."""
    return problem_of(rows, *refusals, rows=rows.shape[0], hidden=hidden, width=width)
