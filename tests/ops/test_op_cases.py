"""The table of ops: each back end of each case gives what float64 gives, and gradients are derivatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import fastamr
from fastamr import ops
from fastamr.testing import relative_error
from fastamr.testing.op_cases import CASES, Case
from fastamr.testing.op_sizes import SMALL

REGISTERED = [case for case in CASES if case.registered is not None]
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
# Arguments of AdamW whose dtypes are not that of the parameters.
FIXED = ("steps", "lrs", "grad_scale", "found_inf", "working")


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
    return [each for each in pytree.tree_leaves(values) if isinstance(each, Tensor)]


def results(case: Case, given: dict[str, Any], backend: str) -> list[Tensor]:
    """What comes out, what the arguments hold afterwards, and their gradients for some gradient of the outputs."""
    if hasattr(ops, case.name):
        with fastamr.backend(**{case.op: backend}):
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
    return [each.detach().cpu() for each in (*found, *given_tensors, *gradients)]


def backends_of(case: Case, device: str) -> list[str]:
    compiled = ("triton", "cpp", "cuda", "reference")  # the back ends of what is only registered
    named = [name for name, reason in ops.availability(device)[case.op].items() if reason is None]
    return named if hasattr(ops, case.name) else [name for name in named if name in compiled]


def tolerance(value: Tensor) -> float:
    return {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}.get(value.dtype, 1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label.replace(" ", "_"))
def test_back_ends_agree_with_float64(case: Case, device: str) -> None:
    given = case.arguments(replace(SMALL, grad=True, device=device))
    truth = results(case, cast(given, torch.float64), "reference")
    ran = []
    for backend in backends_of(case, device):
        try:
            found = results(case, copied(given), backend)
        except RuntimeError as error:
            if "cannot run" not in str(error):
                raise
            continue
        ran.append(backend)
        for one, other in zip(found, truth, strict=True):
            assert one.shape == other.shape
            if one.is_floating_point():
                assert relative_error(one, other) < tolerance(one), backend
            else:
                assert torch.equal(one, other), backend
    assert "reference" in ran


# AdamW's parameters are float32 or float64.
DTYPES = [(case, torch.float64) for case in REGISTERED]
DTYPES += [(case, torch.float16) for case in REGISTERED if case.op != "adamw_update"]


@pytest.mark.parametrize(
    ("case", "dtype"), DTYPES, ids=lambda x: getattr(x, "label", str(x)).replace(" ", "_")
)
def test_fakes_in_other_dtypes(case: Case, dtype: torch.dtype) -> None:
    """The same shapes, dtypes and strides as come out of the reference and of the kernels."""
    given = cast(case.arguments(SMALL), dtype)
    for backend, reason in ops.availability("cpu", dtype)[case.op].items():
        if backend in ("reference", "triton") and reason is None:
            arguments = {**given, "backend": backend}
            torch.library.opcheck(case.registered, (), arguments, test_utils="test_faketensor")


# Ops that pass gradients on, by their cases.
DIFFERENTIABLE = [
    case for case in CASES if any(x.requires_grad for x in tensors(case.arguments(replace(SMALL, grad=True))))
]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda case: case.label.replace(" ", "_"))
def test_gradients_are_derivatives(case: Case) -> None:
    """The registered backward of the reference, against differences in float64."""
    given = cast(case.arguments(replace(SMALL, grad=True)), torch.float64)
    names = [name for name, value in given.items() if isinstance(value, Tensor) and value.requires_grad]

    def function(*leaves: Tensor) -> Any:
        call = given | dict(zip(names, leaves, strict=True))
        if not hasattr(ops, case.name):
            return case.registered(**call, backend="reference")
        with fastamr.backend(**{case.op: "reference"}):
            return case.bind(call)()

    assert torch.autograd.gradcheck(function, [given[name] for name in names], fast_mode=True)
