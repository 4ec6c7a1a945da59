"""Fixtures of the kernel tests: where they run, and poisoned output buffers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import torch

import fastamr

from ..interpreter import quicken_interpreter

quicken_interpreter()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Triton's interpreter on the CPU, and its compiler where there is a GPU."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _on_triton(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels run, whatever the machine would choose by itself."""
    compiles = torch.cuda.is_available() and "device" in request.fixturenames
    if compiles and request.getfixturevalue("device").type == "cpu":
        pytest.skip("the interpreter is chosen before Triton is imported, and this machine compiles")
    with fastamr.backend("triton"):
        yield


def _poison(value: torch.Tensor) -> torch.Tensor:
    if value.dtype == torch.bool:
        return value.fill_(True)
    return value.fill_(float("nan") if value.is_floating_point() else torch.iinfo(value.dtype).max - 7)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninitialised buffers made by the kernels' launchers hold NaN, so an unwritten output cannot pass."""

    def wrap(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def made(*args: object, **kwargs: object) -> torch.Tensor:
            value = make(*args, **kwargs)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            return _poison(value) if caller.startswith("fastamr.kernels") else value

        return made

    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (torch.Tensor, "new_empty"),
    ):
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
