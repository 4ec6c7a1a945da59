"""Product, residual and layer norm in one pass, and the backward through product and norm, at the encoder's size.

1024 features are the MLP's second half, 256 the attention's output; backward 768 are its packed projections.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops, reference
from fastamr.testing import relative_error

from ...conftest import Clock
from ...forms import ROW_FORMS, gflop, in_both_dtypes, in_row_form, number_of_bytes

WIDTH = 256


@pytest.mark.parametrize("features", [256, 1024])
@pytest.mark.parametrize("form", ROW_FORMS)
@in_both_dtypes
def test_linear_residual_norm(
    dtype: torch.dtype, form: str, features: int, device: torch.device, clock: Clock, sequences: int
) -> None:
    rows = sequences * 75
    x, residual = (torch.randn(rows, n, device=device).to(dtype) for n in (features, WIDTH))
    weight = (torch.randn(WIDTH, features, device=device) * features**-0.5).to(dtype)
    bias, gamma, beta = torch.randn(3, WIDTH, device=device).unbind()
    narrow_bias, narrow_gamma, narrow_beta = (vector.to(dtype) for vector in (bias, gamma, beta))

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        total = residual + F.linear(x, weight, narrow_bias)
        return total, F.layer_norm(total, (WIDTH,), narrow_gamma, narrow_beta)

    def op(name: str) -> tuple[torch.Tensor, ...]:
        return ops.linear_residual_norm(x, weight, bias, residual, gamma, beta, backend=name)

    run = in_row_form(form, device, op, plain)
    total, normed = run()[:2]
    matrices = x.double(), weight.double(), bias.double(), residual.double()
    truth = reference.linear_residual_norm(*matrices, gamma.double(), beta.double())
    assert relative_error(total, truth[0]) < (1e-6 if dtype == torch.float32 else 6e-3)
    assert relative_error(normed, truth[1]) < (2e-6 if dtype == torch.float32 else 1e-2)
    moved = number_of_bytes(x, weight, residual, total, normed)
    shape = [rows, features, WIDTH]
    clock(run, "linear_residual_norm", shape, dtype, form, bytes_moved=moved, gflop=gflop(*shape))


@pytest.mark.parametrize("features", [768, 1024])
@pytest.mark.parametrize("form", ROW_FORMS)
@in_both_dtypes
def test_linear_residual_norm_backward(
    dtype: torch.dtype, form: str, features: int, device: torch.device, clock: Clock, sequences: int
) -> None:
    rows = sequences * 75
    upstream = torch.randn(rows, features, device=device).to(dtype)
    weight = (torch.randn(features, WIDTH, device=device) * features**-0.5).to(dtype)
    total, skip = torch.randn(2, rows, WIDTH, device=device).to(dtype).unbind()
    gamma = torch.randn(WIDTH, device=device)
    mean = total.float().mean(1)
    rstd = (total.float().var(1, unbiased=False) + 1e-5).rsqrt()
    narrow = gamma.to(dtype)
    _, *saved = torch.native_layer_norm(total, [WIDTH], narrow, narrow, 1e-5)

    def plain() -> tuple[torch.Tensor, ...]:
        dx, dgamma, dbeta = torch.ops.aten.native_layer_norm_backward(
            upstream @ weight, total, [WIDTH], *saved, narrow, narrow, [True] * 3
        )
        dx = dx + skip
        return dx, dgamma, dbeta, dx.sum(0, dtype=torch.float32)

    arguments = (upstream, weight, total, mean, rstd, gamma, skip)
    run = in_row_form(
        form, device, lambda name: ops.linear_residual_norm_backward(*arguments, backend=name), plain
    )
    found = run()
    truth = reference.linear_residual_norm_backward(*(value.double() for value in arguments))
    narrow_sums = dtype != torch.float32 and form in ("plain", "compiled")  # PyTorch rounds them on the way
    assert relative_error(found[0], truth[0]) < (2e-6 if dtype == torch.float32 else 1e-2)
    for value, exact in zip(found[1:], truth[1:], strict=True):
        assert relative_error(value, exact) < (
            0.1 if narrow_sums else 2e-5 if dtype == torch.float32 else 2e-2
        )
    moved = number_of_bytes(upstream, weight, total, skip, found[0])
    shape = [rows, features, WIDTH]
    clock(run, "linear_residual_norm_backward", shape, dtype, form, bytes_moved=moved, gflop=gflop(*shape))
