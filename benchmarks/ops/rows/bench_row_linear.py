"""A linear layer of rows and its backward: the library's product, the extension's on a CPU's matrix unit, PyTorch's.

float32 is timed at each of torch's matmul precisions: at ``highest``, ``high`` and ``medium`` the unit takes 24, 16 and
8 bits of each number into account, and the library may do the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fastamr import native, ops
from fastamr.testing import relative_error

from ...conftest import Clock
from ...forms import gflop, number_of_bytes

SHAPES = {"mlp": (1024, 256), "qkv": (768, 256), "output": (256, 256), "memory": (2560, 256)}
# Relative errors that are allowed: whether the library rounds float32 inputs where it may is its own affair.
ALLOWED = {"highest": 1e-6, "high": 8e-3, "medium": 8e-3}


@pytest.fixture(params=["float32 highest", "float32 high", "float32 medium", "bfloat16"])
def arithmetic(request: pytest.FixtureRequest, device: torch.device) -> Iterator[str]:
    """The dtype, and the precision of float32 products, which belongs to the process."""
    dtype, _, precision = request.param.partition(" ")
    if precision in ("high", "medium") and device.type == "cpu" and not native.has_matrix_unit():
        pytest.skip("without a matrix unit (AMX) float32 products are the same at every precision")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision or before)
    yield dtype
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("layer", list(SHAPES))
@pytest.mark.parametrize("stage", ["forward", "backward"])
@pytest.mark.parametrize("backend", ["plain", "torch", "cpp"])
def test_row_linear(
    backend: str,
    stage: str,
    layer: str,
    arithmetic: str,
    device: torch.device,
    clock: Clock,
    sequences: int,
) -> None:
    if backend == "cpp" and (device.type != "cpu" or not native.has_matrix_unit()):
        pytest.skip("the extension's products run on a CPU's matrix unit")
    dtype, precision = getattr(torch, arithmetic), torch.get_float32_matmul_precision()
    features, width = SHAPES[layer]
    rows = sequences * 75
    x, upstream = (torch.randn(rows, n, device=device).to(dtype) for n in (width, features))
    weight = (torch.randn(features, width, device=device) / width**0.5).to(dtype)
    bias = torch.randn(features, device=device)
    narrow_bias = bias.to(dtype)

    def forward() -> torch.Tensor:
        if backend == "plain":
            return torch.nn.functional.linear(x, weight, narrow_bias)
        return ops.row_linear(x, weight, bias, backend=backend)

    def backward() -> torch.Tensor:
        if backend == "plain":
            return upstream @ weight
        return ops.row_linear_backward(upstream, weight, backend=backend)

    exact = x.double() @ weight.double().T + bias.double(), upstream.double() @ weight.double()
    allowed = ALLOWED[precision] if dtype == torch.float32 else 8e-3
    for found, truth in zip((forward(), backward()), exact, strict=True):
        assert relative_error(found, truth) < allowed
    moved = number_of_bytes(x, weight, upstream)
    shape = [rows, features, width]
    run = forward if stage == "forward" else backward
    facts: dict[str, Any] = {
        "precision": precision if dtype == torch.float32 else "bfloat16",
        "gflop": gflop(*shape),
    }
    clock(run, f"row_linear {stage}", shape, arithmetic, backend, bytes_moved=moved, **facts)
