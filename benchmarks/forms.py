"""The forms in which an op is timed: the eager reference, ``torch.compile`` of it, and the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr import native
from fastamr.devices import missing_instructions

FORMS = ("reference", "compiled", "triton")
ROW_FORMS = ("plain", "compiled", "cpp", "torch", "triton")
STAGES = ("forward", "backward", "both")
in_both_dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)


def needs_instructions(device: torch.device, value: object) -> None:
    """Skip the case, with the reason, where the device has to emulate products of a dtype.

    Args:
        device: where the case runs.
        value: a dtype, or text that begins with the name of one; anything else needs nothing.
    """
    name = str(value).removeprefix("torch.").partition(" ")[0]
    if name in ("bfloat16", "float16") and (reason := missing_instructions(device, getattr(torch, name))):
        pytest.skip(reason)


def in_form(
    form: str, device: torch.device, op: Callable[[], Any], plain: Callable[[], Any]
) -> Callable[[], Any]:
    """What to call for a form; skips the case, with the reason, where the form has nothing to measure.

    Args:
        form: one of :data:`FORMS`.
        device: where the case runs.
        op: calls the op of :mod:`fastamr.ops`.
        plain: calls the reference of the same name.
    """
    if form == "reference":
        return plain
    if form == "compiled":
        if device.type == "cpu":
            pytest.skip("compiling for the CPU takes minutes and is no competitor here; measured on a GPU")
        torch.compiler.reset()
        return torch.compile(plain, dynamic=False)
    if device.type == "cpu":
        pytest.skip("Triton kernels need a GPU; their interpreter is for tests, not for times")

    def kernel() -> Any:
        with fastamr.backend("triton"):
            return op()

    return kernel


def in_row_form(
    form: str, device: torch.device, op: Callable[[str], Any], plain: Callable[[], Any]
) -> Callable[[], Any]:
    """What to call for a form of an op on flat rows; skips the case where the form has nothing to measure.

    Args:
        form: one of :data:`ROW_FORMS`.
        device: where the case runs.
        op: calls the op of :mod:`fastamr.ops` with the named back end.
        plain: PyTorch's own layers at the same dtype, the library's products included.
    """
    if form in ("plain", "compiled"):
        return in_form("reference" if form == "plain" else form, device, lambda: op("auto"), plain)
    if form == "cpp" and device.type != "cpu":
        pytest.skip("the extension's row passes run on the CPU")
    if form == "cpp" and (reason := native.why_not("cpu")) is not None:
        pytest.skip(reason)
    if form in ("torch", "triton") and device.type == "cpu":
        pytest.skip("Triton kernels need a GPU; their interpreter is for tests, not for times")
    return lambda: op(form)


def at_stage(
    stage: str, function: Callable[[], Tensor], inputs: Sequence[Tensor], upstream: Tensor | None = None
) -> Callable[[], object]:
    """``function`` itself, its backward alone, or both.

    Args:
        stage: one of :data:`STAGES`.
        function: returns the tensor to differentiate.
        inputs: receive the gradients.
        upstream: gradient of the function's result; None for a scalar.
    """
    if stage == "forward":
        return function
    if stage == "both":
        return lambda: torch.autograd.grad(function(), inputs, upstream)
    result = function()
    return lambda: torch.autograd.grad(result, inputs, upstream, retain_graph=True)


def gflop(*sizes: int) -> float:
    """Billions of operations of a matrix product of these sizes."""
    return 2e-9 * math.prod(sizes)


def number_of_bytes(*tensors: Tensor) -> int:
    """Bytes of all numbers of these tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
