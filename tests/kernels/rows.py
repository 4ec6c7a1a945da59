"""What the tests of the kernels on flat rows share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastamr.testing import relative_error

# (M, D, F): a single row, rows and widths that fill no tile, rows that are no multiple of 16 bytes. Float32's tiles are
# small and the interpreter slow, so the paper's width with a long, uneven hidden layer comes in 16 bits.
SMALL = [(1, 24, 96), (37, 48, 100), (65, 33, 50)]
CASES = [
    *((dtype, shape) for dtype in (torch.float32, torch.float16, torch.bfloat16) for shape in SMALL),
    (torch.float32, (130, 24, 72)),
    (torch.float32, (16, 256, 40)),
    (torch.float16, (130, 256, 96)),
    (torch.bfloat16, (37, 256, 1000)),
]


@pytest.fixture(params=[True, False], ids=["descriptors", "pointers"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Both ways in which a tile reaches a kernel, whatever the device would take."""
    for name in ("linear_gelu", "linear_residual_norm", "weight_gradient"):
        monkeypatch.setattr(f"fastamr.kernels.{name}.moves_tiles", lambda device: request.param)
    return request.param


def matrix(dtype: torch.dtype, device: torch.device, *shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, device=device) * scale).to(dtype)


def doubled(*values: Tensor | None) -> list[Tensor | None]:
    return [None if value is None else value.double() for value in values]


def assert_rounded_once(value: Tensor, truth: Tensor, dtype: torch.dtype) -> None:
    """As near as one rounding leaves it; the interpreter cuts bfloat16 off instead of rounding it."""
    assert value.dtype == dtype
    eps = torch.finfo(dtype).eps
    cut = dtype == torch.bfloat16 and value.device.type == "cpu"
    # A GPU sums one product after the other, where the interpreter's library sums in pairs.
    summed = 2e-6 if value.is_cuda else 4e-7
    bound = summed if dtype == torch.float32 else eps * (0.7 if cut else 0.35)
    assert relative_error(value, truth) < bound


def assert_exact_sums(value: Tensor, truth: Tensor) -> None:
    """Float32 sums of products of the given numbers, none of them rounded on the way."""
    assert value.dtype == torch.float32
    assert relative_error(value, truth) < (2e-5 if value.is_cuda else 4e-6)
