"""Layer norm of rows with its statistics, and its backward with all column sums, at the encoder's size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.testing import relative_error

from ...conftest import Clock
from ...forms import in_both_dtypes, number_of_bytes

WIDTH = 256


@pytest.mark.parametrize("stage", ["forward", "backward"])
@pytest.mark.parametrize("backend", ["reference", "torch", "cpp", "triton"])
@in_both_dtypes
def test_row_norm(
    dtype: torch.dtype, backend: str, stage: str, device: torch.device, clock: Clock, sequences: int
) -> None:
    if backend == "cpp" and device.type != "cpu":
        pytest.skip("the extension's row passes run on the CPU")
    if backend == "triton" and device.type == "cpu":
        pytest.skip("Triton kernels need a GPU; their interpreter is for tests, not for times")
    x, upstream, skip = torch.randn(3, sequences * 75, WIDTH, device=device).to(dtype).unbind()
    gamma, beta = torch.randn(2, WIDTH, device=device)
    normed, mean, rstd = ops.row_norm(x, gamma, beta, backend=backend)
    exact = x.double().requires_grad_()
    truth = F.layer_norm(exact, (WIDTH,), gamma.double(), beta.double())
    (dx,) = torch.autograd.grad(truth, exact, upstream.double())
    allowed = 2e-6 if dtype == torch.float32 else 6e-3
    found = ops.row_norm_backward(upstream, x, mean, rstd, gamma, skip, backend=backend)
    assert relative_error(normed, truth) < allowed
    assert relative_error(found[0], dx + skip.double()) < allowed

    def forward() -> object:
        return ops.row_norm(x, gamma, beta, backend=backend)

    def backward() -> object:
        return ops.row_norm_backward(upstream, x, mean, rstd, gamma, skip, backend=backend)

    moved = number_of_bytes(x, normed) if stage == "forward" else number_of_bytes(x, upstream, skip, found[0])
    run = forward if stage == "forward" else backward
    clock(run, f"row_norm {stage}", x.shape, dtype, backend, bytes_moved=moved)
