"""Calls of the ops' cases: in other dtypes, on a back end, with all that comes out of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .. import ops
from .op_cases import Arguments, Case

# Arguments of AdamW whose dtypes are not that of the parameters.
_FIXED = ("steps", "lrs", "grad_scale", "found_inf", "working")
# The back ends of what is only registered.
_COMPILED = ("triton", "cpp", "cuda", "reference")


def copied(values: Any, dtype: torch.dtype | None = None) -> Any:
    """The same values in tensors of their own; with a dtype, all that is floating takes it."""

    def copy(value: Tensor) -> Tensor:
        other = value.detach().to(dtype if dtype and value.is_floating_point() else value.dtype, copy=True)
        return other.requires_grad_(value.requires_grad)

    values = pytree.tree_map_only(Tensor, copy, values)
    return pytree.tree_map_only(torch.dtype, lambda kept: dtype or kept, values)


def cast(given: Arguments, dtype: torch.dtype) -> Arguments:
    """The arguments in another dtype."""
    return {name: copied(value, None if name in _FIXED else dtype) for name, value in given.items()}


def tensors(values: Any) -> list[Tensor]:
    """All tensors in nested containers."""
    return [each for each in pytree.tree_leaves(values) if isinstance(each, Tensor)]


def results(case: Case, given: Arguments, backend: str) -> list[Tensor]:
    """What comes out, what the arguments hold afterwards, and their gradients for some gradient of the outputs.

    Args:
        case: the kind of call.
        given: its arguments, which the call may write into.
        backend: the back end that is named for it.

    Raises:
        RuntimeError: it cannot run the call.
    """
    if hasattr(ops, case.name):
        with ops.backend(**{case.op: backend}):
            found = tensors(case.bind(given)())
    else:
        found = tensors(case.registered(**given, backend=backend))
    generator = torch.Generator().manual_seed(1)
    leading = [each for each in found if each.requires_grad]
    upstream = [
        torch.randn(each.shape, dtype=torch.float64, generator=generator).to(each) for each in leading
    ]
    if leading:
        torch.autograd.backward(leading, upstream)
    held = tensors(given)
    gradients = [each.grad for each in held if each.grad is not None]
    return [each.detach() for each in (*found, *held, *gradients)]


def backends_of(case: Case, device_type: str, dtype: torch.dtype = torch.float32) -> list[str]:
    """Names of the back ends that may run a case on a device, each with a form of its own for it."""
    named = [name for name, reason in ops.availability(device_type, dtype)[case.op].items() if reason is None]
    # The attention's backward has autograd where SDPA ran the forward, and no other form than the reference.
    every = hasattr(ops, case.name) and not case.name.startswith("visible_attention_backward")
    return named if every else [name for name in named if name in _COMPILED]
