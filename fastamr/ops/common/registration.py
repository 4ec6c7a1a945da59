"""Fakes and gradients of registered ops by the names of their arguments, so that only the op states its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.library import CustomOpDef


def _arguments(op: CustomOpDef) -> list[str]:
    return [argument.name for argument in op._opoverload._schema.arguments]


def _check_names(op: CustomOpDef, names: Any) -> None:
    known = _arguments(op)
    for name in names:
        if name not in known:
            raise TypeError(f"{op._qualname} has no argument {name!r}: expected one of {', '.join(known)}")


def fake_of(op: CustomOpDef) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what comes out of an op (shapes, dtypes, strides) without computing it.

    The decorated function names those of the op's arguments that it reads, in any order.

    Raises:
        TypeError: it names an argument that the op does not have.
    """
    names = _arguments(op)
    # An argument that equals its default is not passed on.
    schema = op._opoverload._schema.arguments
    defaults = {each.name: each.default_value for each in schema if each.has_default_value()}

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        read = tuple(inspect.signature(function).parameters)
        _check_names(op, read)

        @op.register_fake
        def _(*values: Any, **named: Any) -> Any:
            given = defaults | dict(zip(names, values, strict=False)) | named
            return function(*(given[name] for name in read))

        return function

    return register


def gradients_of(
    op: CustomOpDef, backward: Callable[..., dict[str, Tensor | None]]
) -> Callable[..., tuple[Tensor | None, ...]]:
    """The form of a backward that ``register_autograd`` takes.

    Args:
        op: the op.
        backward: takes the context and the outputs' gradients, returns gradients by the names of the op's arguments;
            arguments that it leaves out receive none.
    """
    names = _arguments(op)

    def positional(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = backward(ctx, *grads)
        _check_names(op, found)
        return tuple(found.get(name) for name in names)

    return positional
