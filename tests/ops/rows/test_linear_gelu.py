"""What the op means: the plain layers' values and gradients in float64, and its argument checks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.reference.rows.linear_gelu import form_for, gelu_and_slope, linear_gelu
from fastamr.testing import relative_error


def test_value_and_backward_are_those_of_the_plain_layers() -> None:
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(9, 5, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    bias.requires_grad_()
    following, upstream = (
        torch.randn(4, 9, dtype=torch.float64),
        torch.randn(7, 4, dtype=torch.float64),
    )
    u = F.linear(x, weight, bias)
    u.retain_grad()
    plain = F.gelu(u)
    F.linear(plain, following).backward(upstream)
    with torch.no_grad():
        h, slope = ops.linear_gelu(x, weight, bias)
        du, columns = ops.linear_gelu_backward(upstream, following, slope)
    torch.testing.assert_close(h, plain, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(du, u.grad, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(columns, bias.grad, rtol=1e-12, atol=1e-13)


def test_the_tanh_form_is_within_its_bound_and_the_other_exact() -> None:
    u = torch.linspace(-60, 60, 60_001, dtype=torch.float64, requires_grad=True)
    exact = F.gelu(u)
    (derivative,) = torch.autograd.grad(exact.sum(), u)
    values, slopes = gelu_and_slope(u.detach(), "erf")
    torch.testing.assert_close(values, exact.detach(), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(slopes, derivative, rtol=1e-13, atol=1e-15)
    values, slopes = gelu_and_slope(u.detach(), "tanh")
    assert 4.5e-5 < (values - exact).abs().max() < 4.85e-5
    assert (slopes - derivative).abs().max() < 2.5e-4
    assert [form_for(dtype) for dtype in (torch.bfloat16, torch.float16)] == ["tanh", "tanh"]
    assert [form_for(dtype) for dtype in (torch.float32, torch.float64)] == ["erf", "erf"]


def test_each_form_slopes_as_its_value_says() -> None:
    u = torch.linspace(-7.9, 7.9, 1001, dtype=torch.float64, requires_grad=True)
    for form in ("erf", "tanh"):
        values, slopes = gelu_and_slope(u, form)
        (derivative,) = torch.autograd.grad(values.sum(), u)
        torch.testing.assert_close(slopes, derivative, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_dtypes_round_once(dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(30, 24).to(dtype), (torch.randn(50, 24) / 5).to(dtype), torch.randn(50)
    truth = linear_gelu(x.double(), weight.double(), bias.double(), form=form_for(dtype))
    bound = max(0.3 * torch.finfo(dtype).eps, 3e-7)
    for backend in ("reference", "auto"):
        h, slope = ops.linear_gelu(x, weight, bias, backend=backend)
        assert h.dtype == slope.dtype == dtype
        # A back end may round the product before its pass, and may use the exact form of GELU.
        loose = bound if backend == "reference" else 4 * bound
        assert relative_error(h, truth[0]) < loose
        assert relative_error(slope, truth[1]) < loose
    du, columns = ops.linear_gelu_backward(x[:, :20].contiguous(), weight[:20].new_ones(20, 50), slope)
    assert du.dtype == dtype
    assert columns.dtype == torch.float32


def test_without_slope_and_without_rows() -> None:
    x, weight, bias = torch.randn(3, 4), torch.randn(6, 4), torch.randn(6)
    h, slope = ops.linear_gelu(x, weight, bias, slope=False)
    assert slope is None
    assert torch.equal(h, ops.linear_gelu(x, weight, bias)[0])
    h, slope = ops.linear_gelu(x[:0], weight, bias)
    assert h.shape == slope.shape == (0, 6)
    du, columns = ops.linear_gelu_backward(x[:0], weight.T.contiguous(), slope)
    assert du.shape == (0, 6)
    assert (columns == 0).all()


def test_autocast_leaves_float32_alone() -> None:
    x, weight, bias = torch.randn(3, 40), torch.randn(6, 40), torch.randn(6)
    expected = ops.linear_gelu(x, weight, bias, backend="reference")[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.linear_gelu(x, weight, bias, backend="reference")[0], expected)


def test_arguments_are_checked() -> None:
    x, weight, bias, slope = torch.randn(3, 4), torch.randn(6, 4), torch.randn(6), torch.randn(3, 6)
    with pytest.raises(ValueError, match=r"weight must have shape \(F, D\) = \(6, 4\), got \(6, 5\)"):
        ops.linear_gelu(x, torch.randn(6, 5), bias)
    with pytest.raises(ValueError, match=r"x must have shape \(M, D\), got \(1, 3, 4\)"):
        ops.linear_gelu(x[None], weight, bias)
    with pytest.raises(ValueError, match=r"x has strides \(1, 3\): expected contiguous rows, call x.contig"):
        ops.linear_gelu(torch.randn(4, 3).T, weight, bias)
    with pytest.raises(TypeError, match="weight must be of dtype float32, got bfloat16"):
        ops.linear_gelu(x, weight.bfloat16(), bias)
    with pytest.raises(TypeError, match="bias must be a tensor"):
        ops.linear_gelu(x, weight, None)
    with pytest.raises(ValueError, match="bias is on meta, x on cpu"):
        ops.linear_gelu(x, weight, bias.to("meta"))
    with pytest.raises(ValueError, match=r"slope must have shape \(M, F\) = \(3, 6\)"):
        ops.linear_gelu_backward(x, weight.T.contiguous(), slope[:2])
    with pytest.raises(RuntimeError, match="weight requires a gradient and this op carries none"):
        ops.linear_gelu(x, weight.requires_grad_(), bias)
    with pytest.raises(ValueError, match="backend of linear_gelu"):
        ops.linear_gelu(x, weight.detach(), bias, backend="sdpa")
