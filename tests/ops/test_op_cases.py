"""The table of ops: each back end of each case gives what float64 gives, and gradients are derivatives."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr import ops, reference
from fastamr.testing.checking import backends_of, cast, compare, copied, results, tensors, tolerance
from fastamr.testing.op_cases import CASES, Case
from fastamr.testing.op_sizes import SMALL

REGISTERED = [case for case in CASES if case.registered is not None]
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


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
        for value, error in zip(found, compare(found, truth), strict=True):
            assert error < tolerance(value), backend
    assert "reference" in ran


@contextlib.contextmanager
def references_called() -> Iterator[set[str]]:
    """Names of the functions of fastamr.reference that run inside the block."""
    folder, seen = str(Path(reference.__file__).parent), set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(folder):
            seen.add(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label.replace(" ", "_"))
def test_no_back_end_is_the_reference_by_another_name(case: Case) -> None:
    """Or a comparison of the two would say nothing."""
    given = case.arguments(replace(SMALL, grad=True))
    for backend in backends_of(case, "cpu"):
        with references_called() as seen, contextlib.suppress(RuntimeError):
            results(case, copied(given), backend)
        own = {
            case.name,
            case.op,
            f"{case.op}_backward",
            case.name.removesuffix("_into"),
            "loss_slope_and_share",
        }
        assert bool(seen & own) == (backend == "reference"), (backend, seen)


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
