"""What the op means: the plain layers' values and gradients in float64, and its argument checks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops, reference
from fastamr.testing import relative_error

ROWS, WIDTH, FEATURES = 7, 6, 9


def inputs(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """x, weight, bias, residual, gamma, beta; vectors in the dtype of the sums."""
    vectors = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = [(ROWS, FEATURES), (WIDTH, FEATURES), (WIDTH,), (ROWS, WIDTH), (WIDTH,), (WIDTH,)]
    return [torch.randn(shape).to(dtype if len(shape) == 2 else vectors) for shape in shapes]


@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("with_skip", [True, False])
def test_value_and_backward_are_those_of_the_plain_layers(with_skip: bool, with_scale: bool) -> None:
    x, weight, bias, residual, gamma, beta = (value.requires_grad_() for value in inputs())
    scale = torch.tensor([0, 1, 2.5, 0, 1.25, -1, 3], dtype=torch.float64) if with_scale else None
    following = torch.randn(5, WIDTH, dtype=torch.float64)
    upstream = torch.randn(ROWS, 5, dtype=torch.float64)
    skip = torch.randn(ROWS, WIDTH, dtype=torch.float64) if with_skip else None
    product = F.linear(x, weight, bias)
    total = residual + (product if scale is None else scale[:, None] * product)
    plain = F.layer_norm(total, (WIDTH,), gamma, beta, 1e-3)
    objective = (F.linear(plain, following) * upstream).sum()
    if skip is not None:
        objective = objective + (total * skip).sum()
    wanted = [residual, gamma, beta, bias, *([] if scale is None else [product])]
    expected = torch.autograd.grad(objective, wanted)
    with torch.no_grad():
        found = ops.linear_residual_norm(x, weight, bias, residual, gamma, beta, 1e-3, scale=scale)
        gradients = ops.linear_residual_norm_backward(
            upstream, following, found[0], found[2], found[3], gamma, skip, scale=scale
        )
    torch.testing.assert_close(found[0], total, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(found[1], plain, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found[2], total.mean(1), rtol=1e-12, atol=1e-14)
    for gradient, truth in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_norm_is_that_of_the_rounded_sum(dtype: torch.dtype) -> None:
    """So that the backward, which reads the rounded sum, differentiates exactly what the forward computed."""
    x, weight, bias, residual, gamma, beta = inputs(dtype)
    # A large residual makes the rounding of the sum the largest error there is.
    residual = residual * 30
    total, normed, mean, rstd = ops.linear_residual_norm(
        x, weight, bias, residual, gamma, beta, backend="reference"
    )
    assert [t.dtype for t in (total, normed, mean, rstd)] == [dtype, dtype, torch.float32, torch.float32]
    expected = F.layer_norm(total.double(), (WIDTH,), gamma.double(), beta.double())
    assert relative_error(normed, expected) < 0.4 * torch.finfo(dtype).eps
    torch.testing.assert_close(mean.double(), total.double().mean(1), rtol=1e-5, atol=1e-6)


def test_column_sums_are_of_unrounded_numbers() -> None:
    """Each sum over 4,000 rows is exact to float32, far beyond the rounding of bfloat16 rows."""
    rows = 4000
    upstream, weight = torch.randn(rows, 5).bfloat16(), torch.randn(5, WIDTH).bfloat16()
    total, skip = torch.randn(rows, WIDTH).bfloat16(), torch.randn(rows, WIDTH).bfloat16()
    mean, rstd, gamma = torch.randn(rows) * 0.1, 1 + torch.rand(rows), torch.randn(WIDTH)
    arguments = (upstream, weight, total, mean, rstd, gamma, skip)
    found = ops.linear_residual_norm_backward(*arguments, backend="reference")
    truth = reference.linear_residual_norm_backward(*(value.double() for value in arguments))
    for sums, exact in zip(found[1:], truth[1:], strict=True):
        assert sums.dtype == torch.float32
        assert relative_error(sums, exact) < 1e-5


def test_without_rows() -> None:
    x, weight, bias, residual, gamma, beta = inputs(torch.float32)
    found = ops.linear_residual_norm(x[:0], weight, bias, residual[:0], gamma, beta)
    assert [tuple(value.shape) for value in found] == [(0, WIDTH), (0, WIDTH), (0,), (0,)]
    gradients = ops.linear_residual_norm_backward(
        x[:0], weight.T.contiguous(), found[0], found[2], found[3], gamma, None
    )
    assert gradients[0].shape == (0, WIDTH)
    assert all((sums == 0).all() for sums in gradients[1:])


def test_wide_rows_leave_the_kernels_to_the_reference() -> None:
    wide = torch.zeros(1, 600), torch.zeros(600, 600), torch.zeros(600), torch.zeros(1, 600)
    ops.linear_residual_norm(*wide, wide[2], wide[2])
    with pytest.raises(RuntimeError, match="rows of more than 512 values"):
        ops.linear_residual_norm(*wide, wide[2], wide[2], backend="triton")


def test_arguments_are_checked() -> None:
    x, weight, bias, residual, gamma, beta = inputs(torch.float32)
    with pytest.raises(ValueError, match=r"residual must have shape \(M, D\) = \(7, 6\), got \(1, 6\)"):
        ops.linear_residual_norm(x, weight, bias, residual[:1], gamma, beta)
    with pytest.raises(TypeError, match="gamma must be of dtype float32"):
        ops.linear_residual_norm(x, weight, bias, residual, gamma.half(), beta)
    total, _, mean, rstd = ops.linear_residual_norm(x, weight, bias, residual, gamma, beta)
    upstream, following = torch.randn(ROWS, 4), torch.randn(4, WIDTH)
    with pytest.raises(TypeError, match="mean must be of dtype float32, got float64"):
        ops.linear_residual_norm_backward(upstream, following, total, mean.double(), rstd, gamma)
    with pytest.raises(ValueError, match=r"skip must have shape \(M, D\) = \(7, 6\)"):
        ops.linear_residual_norm_backward(upstream, following, total, mean, rstd, gamma, total[:, :2])
    with pytest.raises(ValueError, match=r"scale must have shape \(M,\) = \(7,\), got \(6,\)"):
        ops.linear_residual_norm(x, weight, bias, residual, gamma, beta, scale=gamma)
    with pytest.raises(TypeError, match="scale must be of dtype float32, got float64"):
        ops.linear_residual_norm_backward(
            upstream, following, total, mean, rstd, gamma, scale=torch.ones(ROWS, dtype=torch.float64)
        )
    with pytest.raises(RuntimeError, match="beta requires a gradient and this op carries none"):
        ops.linear_residual_norm(x, weight, bias, residual, gamma, beta.requires_grad_())
