"""A back end against float64: what comes of a case, and how far it may be from the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .. import ops
from .comparers import relative_error
from .op_cases import Case

# Arguments of AdamW whose dtypes are not that of the parameters.
FIXED = ("steps", "lrs", "grad_scale", "found_inf", "working")
_TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def copied(values: Any, dtype: torch.dtype | None = None) -> Any:
    """The same values in tensors of their own; with a dtype, all that is floating takes it."""

    def copy(value: Tensor) -> Tensor:
        other = value.detach().to(dtype if dtype and value.is_floating_point() else value.dtype, copy=True)
        return other.requires_grad_(value.requires_grad)

    values = pytree.tree_map_only(Tensor, copy, values)
    return pytree.tree_map_only(torch.dtype, lambda kept: dtype or kept, values)


def cast(given: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The arguments in another dtype."""
    return {name: copied(value, None if name in FIXED else dtype) for name, value in given.items()}


def tensors(values: Any) -> list[Tensor]:
    """All tensors in lists, tuples and mappings."""
    return [each for each in pytree.tree_leaves(values) if isinstance(each, Tensor)]


def results(case: Case, given: dict[str, Any], backend: str) -> list[Tensor]:
    """What comes out, what the arguments hold afterwards, and their gradients for some gradient of the outputs.

    Args:
        case: the kind of call.
        given: its arguments.
        backend: the back end.
    """
    if hasattr(ops, case.name):
        with ops.backend(**{case.op: backend}):
            found = tensors(case.bind(given)())
    else:
        found = tensors(case.registered(**given, backend=backend))
    torch.manual_seed(1)
    leading = [each for each in found if each.requires_grad]
    upstream = [torch.randn(each.shape, dtype=torch.float64).to(each) for each in leading]
    if leading:
        torch.autograd.backward(leading, upstream)
    given_tensors = tensors(given)
    gradients = [each.grad for each in given_tensors if each.grad is not None]
    return [each.detach() for each in (*found, *given_tensors, *gradients)]


def backends_of(case: Case, device: str, dtype: torch.dtype = torch.float32) -> list[str]:
    """Names of the back ends that can run a case on a device, each with a form of its own for it."""
    compiled = ("triton", "cpp", "cuda", "reference")  # the back ends of what is only registered
    named = [name for name, reason in ops.availability(device, dtype)[case.op].items() if reason is None]
    # The attention's backward has autograd where SDPA ran the forward, and no other form than the reference.
    every = hasattr(ops, case.name) and not case.name.startswith("visible_attention_backward")
    return named if every else [name for name in named if name in compiled]


def tolerance(value: Tensor) -> float:
    """Relative error that a result of this dtype may have at small sizes."""
    return _TOLERANCES.get(value.dtype, 1e-12)


def compare(found: Sequence[Tensor], truth: Sequence[Tensor]) -> list[float]:
    """The relative error of each result; infinite where whole numbers or shapes differ.

    Args:
        found: of the back end under test.
        truth: the same in float64.
    """
    if len(found) != len(truth):
        return [float("inf")]
    errors = []
    for one, other in zip(found, truth, strict=True):
        if one.shape != other.shape:
            errors.append(float("inf"))
        elif one.is_floating_point():
            errors.append(relative_error(one, other))
        else:
            errors.append(0.0 if torch.equal(one, other) else float("inf"))
    return errors
