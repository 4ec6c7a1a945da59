"""The gradient of a weight: the library's product against the kernel that sums slices of the rows.

What the kernel wins here belongs into ``_KERNEL_IS_FASTER`` and ``_GROUP_IS_FASTER`` of
:mod:`fastamr.ops.weight_gradient`.
"""

from __future__ import annotations

import pytest
import torch

from fastamr import native, ops
from fastamr.testing import relative_error

from ...conftest import Clock
from ...forms import gflop, in_both_dtypes, needs_instructions, number_of_bytes

SHAPES = {"mlp": (1024, 256), "qkv": (768, 256), "output": (256, 256), "memory": (2560, 256)}


@pytest.mark.parametrize("layer", list(SHAPES))
@pytest.mark.parametrize("backend", ["torch", "triton", "cpp"])
@in_both_dtypes
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
    moved = number_of_bytes(upstream, x, out)
    shape = [rows, features, width]
    clock(run, "weight_gradient", shape, dtype, backend, bytes_moved=moved, gflop=gflop(*shape))


# (F, D) in the order in which the backward of an encoder's and a decoder's layer meets them.
LAYERS = {
    "encoder": [(256, 1024), (1024, 256), (256, 256), (768, 256)],
    "decoder": [(256, 1024), (1024, 256), (256, 256), (256, 256)],
}


@pytest.mark.parametrize("layer", list(LAYERS))
@pytest.mark.parametrize("form", ["torch", "triton one by one", "triton"])
def test_weight_gradients(form: str, layer: str, device: torch.device, clock: Clock, sequences: int) -> None:
    """A layer's four weights: the library's products, the kernel for each, and one launch for all."""
    if form != "torch" and device.type == "cpu":
        pytest.skip("Triton kernels need a GPU; their interpreter is for tests, not for times")
    needs_instructions(device, torch.bfloat16)
    rows = sequences * (75 if layer == "encoder" else 125)
    pairs = [
        (torch.randn(rows, f, device=device).bfloat16(), torch.randn(rows, d, device=device).bfloat16())
        for f, d in LAYERS[layer]
    ]

    def run() -> list[torch.Tensor]:
        if form == "triton one by one":
            return [ops.weight_gradient(upstream, x, backend="triton") for upstream, x in pairs]
        return ops.weight_gradients(pairs, backend=form)

    allowed = 6e-3 if device.type == "cpu" else 1e-5
    found = run()
    for value, (upstream, x) in zip(found, pairs, strict=True):
        assert relative_error(value, upstream.double().T @ x.double()) < allowed
    moved = number_of_bytes(*(each for pair in pairs for each in pair), *found)
    work = sum(gflop(rows, *pair) for pair in LAYERS[layer])
    clock(run, "weight_gradients", [rows, layer], "bfloat16", form, bytes_moved=moved, gflop=work)
