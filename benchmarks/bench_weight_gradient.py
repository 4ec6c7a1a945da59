"""The gradient of a weight: the library's product against the kernel that sums slices of the rows.

What the kernel wins here belongs into ``_KERNEL_IS_FASTER`` of :mod:`fastamr.ops.weight_gradient`.
"""

from __future__ import annotations

import pytest
import torch

from fastamr import native, ops
from fastamr.testing import relative_error

from .conftest import Clock
from .forms import number_of_bytes

SHAPES = {"mlp": (1024, 256), "qkv": (768, 256), "output": (256, 256), "memory": (2560, 256)}


@pytest.mark.parametrize("layer", list(SHAPES))
@pytest.mark.parametrize("backend", ["torch", "triton", "cpp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_weight_gradient(
    dtype: torch.dtype, backend: str, layer: str, device: torch.device, clock: Clock, sequences: int
) -> None:
    if backend == "triton" and device.type == "cpu":
        pytest.skip("Triton kernels need a GPU; their interpreter is for tests, not for times")
    if backend == "cpp" and (device.type != "cpu" or not native.has_matrix_unit()):
        pytest.skip("the extension's products run on a CPU's matrix unit")
    features, width = SHAPES[layer]
    rows = sequences * 75
    upstream, x = (torch.randn(rows, n, device=device).to(dtype) for n in (features, width))
    out = torch.empty(features, width, device=device)

    def run() -> torch.Tensor:
        return ops.weight_gradient(upstream, x, out, backend=backend)

    allowed = 6e-3 if device.type == "cpu" and dtype != torch.float32 else 1e-5
    assert relative_error(run(), upstream.double().T @ x.double()) < allowed
    clock(
        run,
        bytes_moved=number_of_bytes(upstream, x, out),
        op="weight_gradient",
        shape=[rows, features, width],
        dtype=str(dtype).removeprefix("torch."),
        backend=backend,
        gflop=2e-9 * rows * features * width,
    )
