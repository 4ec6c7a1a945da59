"""The first half of an MLP with GELU in the product's epilogue, and its backward, at the encoder's size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.testing import relative_error

from ...conftest import Clock
from ...forms import ROW_FORMS, gflop, in_both_dtypes, in_row_form, number_of_bytes

WIDTH, FEATURES = 256, 1024


@pytest.mark.parametrize("form", ROW_FORMS)
@in_both_dtypes
def test_linear_gelu(
    dtype: torch.dtype, form: str, device: torch.device, clock: Clock, sequences: int
) -> None:
    rows = sequences * 75
    x = torch.randn(rows, WIDTH, device=device).to(dtype)
    weight = (torch.randn(FEATURES, WIDTH, device=device) / 16).to(dtype)
    bias = torch.randn(FEATURES, device=device)
    narrow_bias = bias.to(dtype)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        u = F.linear(x, weight, narrow_bias)
        return F.gelu(u), u  # autograd keeps u for the backward

    run = in_row_form(form, device, lambda name: ops.linear_gelu(x, weight, bias, backend=name), plain)
    h, kept = run()
    truth = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    assert relative_error(h, truth) < (1e-6 if dtype == torch.float32 else 6e-3)
    moved = number_of_bytes(x, weight, bias, h, kept)
    shape = [rows, WIDTH, FEATURES]
    clock(run, "linear_gelu", shape, dtype, form, bytes_moved=moved, gflop=gflop(*shape))


@pytest.mark.parametrize("form", ROW_FORMS)
@in_both_dtypes
def test_linear_gelu_backward(
    dtype: torch.dtype, form: str, device: torch.device, clock: Clock, sequences: int
) -> None:
    rows = sequences * 75
    upstream = torch.randn(rows, WIDTH, device=device).to(dtype)
    weight = (torch.randn(WIDTH, FEATURES, device=device) / 16).to(dtype)
    u = torch.randn(rows, FEATURES, device=device).to(dtype)
    wide = u.double().requires_grad_()
    (slope,) = torch.autograd.grad(F.gelu(wide).sum(), wide)
    truth = upstream.double() @ weight.double() * slope
    saved = slope.to(dtype)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        du = torch.ops.aten.gelu_backward(upstream @ weight, u)
        return du, du.sum(0, dtype=torch.float32)

    run = in_row_form(
        form, device, lambda name: ops.linear_gelu_backward(upstream, weight, saved, backend=name), plain
    )
    du, columns = run()
    assert relative_error(du, truth) < (2e-6 if dtype == torch.float32 else 1e-2)
    assert relative_error(columns, truth.sum(0)) < (1e-4 if dtype == torch.float32 else 2e-2)
    moved = number_of_bytes(upstream, weight, u, du)
    shape = [rows, WIDTH, FEATURES]
    clock(run, "linear_gelu_backward", shape, dtype, form, bytes_moved=moved, gflop=gflop(*shape))
