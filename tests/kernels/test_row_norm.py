"""The kernels over finished rows against the float64 reference: row_norm, and the passes of the back end ``torch``."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels import linear_gelu as gelu
from fastamr.kernels import row_norm as module
from torch import Tensor

from fastamr import ops, reference
from fastamr.reference.rows.linear_gelu import form_for, gelu_and_slope
from fastamr.testing import relative_error

from .repeats import assert_repeats
from .rows import assert_exact_sums, assert_rounded_once, doubled, matrix
from .test_linear_residual_norm import backward_inputs, factors, forward_inputs

# A single row, rows that fill no tile and no program, widths that are no power of two, a row wider than a tile.
SHAPES = [(1, 24), (37, 48), (130, 256), (65, 33), (70, 512), (5, 2500)]
CASES = [
    *((dtype, shape) for dtype in (torch.float32, torch.bfloat16) for shape in SHAPES),
    (torch.float16, (130, 48)),
]


def norm_inputs(dtype: torch.dtype, shape: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
    """x, gamma, beta, upstream, skip; x away from zero mean."""
    x, upstream, skip = (matrix(dtype, device, *shape) for _ in range(3))
    return (3 * x + 5, *torch.randn(2, shape[1], device=device), upstream, skip)


@pytest.mark.thinned
@pytest.mark.parametrize(("dtype", "shape"), CASES)
def test_norm(dtype: torch.dtype, shape: tuple[int, int], device: torch.device) -> None:
    x, gamma, beta, upstream, skip = norm_inputs(dtype, shape, device)
    normed, mean, rstd = ops.row_norm(x, gamma, beta, 1e-3)
    truth = reference.row_norm(*doubled(x, gamma, beta), 1e-3)
    assert_rounded_once(normed, truth[0], dtype)
    torch.testing.assert_close(mean.double(), truth[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rstd.double(), truth[2], rtol=1e-5, atol=1e-6)
    for rest in (skip, None):
        found = ops.row_norm_backward(upstream, x, mean, rstd, gamma, rest)
        exact = reference.row_norm_backward(*doubled(upstream, x, mean, rstd, gamma, rest))
        assert_rounded_once(found[0], exact[0], dtype)
        for sums, true in zip(found[1:], exact[1:], strict=True):
            assert_exact_sums(sums, true)
    assert_repeats(found, lambda: ops.row_norm_backward(upstream, x, mean, rstd, gamma))


@pytest.mark.thinned
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("dtype", "shape"), CASES)
def test_norm_after_a_product(
    dtype: torch.dtype, shape: tuple[int, int], scaled: bool, device: torch.device
) -> None:
    """The pass alone: what is given to it was rounded before, and nothing else is."""
    residual, gamma, beta, product, skip = norm_inputs(dtype, shape, device)
    bias, scale = torch.randn(shape[1], device=device), factors(shape[0], device) if scaled else None
    given = product.clone()
    total, normed, mean, rstd = module.residual_norm_rows(given, bias, residual, gamma, beta, 1e-3, scale)
    assert total is given
    eye = torch.eye(shape[1], device=device, dtype=torch.float64)
    exact = doubled(bias, residual, gamma, beta)
    truth = reference.linear_residual_norm(product.double(), eye, *exact, 1e-3, *doubled(scale))
    assert_rounded_once(total, truth[0], dtype)
    wide = total.double()
    torch.testing.assert_close(mean.double(), wide.mean(1), rtol=1e-5, atol=1e-5)
    again = reference.row_norm(wide, gamma.double(), beta.double(), 1e-3)[0]
    assert_rounded_once(normed, again, dtype)
    torch.testing.assert_close(
        rstd.double(), (wide.var(1, unbiased=False) + 1e-3).rsqrt(), rtol=1e-5, atol=1e-6
    )

    given = product.clone()
    found = module.residual_norm_backward_rows(given, total, mean, rstd, gamma, skip, scale)
    assert found[0] is given
    exact = doubled(total, mean, rstd, gamma, skip, scale)
    truth = reference.linear_residual_norm_backward(product.double(), eye, *exact)
    assert len(found) == len(truth) == (5 if scaled else 4)
    for rows in (0, 4) if scaled else (0,):
        assert_rounded_once(found[rows], truth[rows], dtype)
    for sums, true in zip(found[1:4], truth[1:4], strict=True):
        assert_exact_sums(sums, true)


@pytest.mark.thinned
@pytest.mark.parametrize(("dtype", "shape"), CASES)
def test_gelu_after_a_product(dtype: torch.dtype, shape: tuple[int, int], device: torch.device) -> None:
    product, upstream = matrix(dtype, device, *shape), matrix(dtype, device, *shape)
    bias = torch.randn(shape[1], device=device)
    values, derivative = gelu_and_slope(product.double() + bias.double(), form_for(dtype))
    h, slope = gelu.gelu_rows(product.clone(), bias, slope=True)
    assert_rounded_once(h, values, dtype)
    assert_rounded_once(slope, derivative, dtype)
    again, nothing = gelu.gelu_rows(product.clone(), bias, slope=False)
    assert nothing is None
    assert torch.equal(h, again)
    du, columns = gelu.gelu_backward_rows(upstream.clone(), slope)
    exact = upstream.double() * slope.double()
    assert_rounded_once(du, exact, dtype)
    assert_exact_sums(columns, exact.sum(0))


def test_a_far_mean_does_not_cancel(device: torch.device) -> None:
    """The variance is that of centred numbers: rows about 300 with a spread of 1 keep their norm."""
    x, gamma, beta, _, _ = norm_inputs(torch.float32, (5, 48), device)
    x = x / 3 + 300
    normed, _, _ = ops.row_norm(x, gamma, beta)
    expected = torch.nn.functional.layer_norm(x.double(), (48,), gamma.double(), beta.double())
    torch.testing.assert_close(normed.double(), expected, rtol=1e-4, atol=1e-4)


def test_without_rows(device: torch.device) -> None:
    x, gamma, beta, upstream, skip = norm_inputs(torch.float32, (0, 16), device)
    normed, mean, rstd = ops.row_norm(x, gamma, beta)
    assert [tuple(value.shape) for value in (normed, mean, rstd)] == [(0, 16), (0,), (0,)]
    dx, *sums = ops.row_norm_backward(upstream, x, mean, rstd, gamma, skip)
    assert dx.shape == (0, 16)
    assert all(torch.equal(value, torch.zeros(16, device=device)) for value in sums)
    du, columns = gelu.gelu_backward_rows(x, x)
    assert du.shape == (0, 16)
    assert torch.equal(columns, torch.zeros(16, device=device))


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_that_are_added_later_are_the_same(
    backend: str, dtype: torch.dtype, device: torch.device
) -> None:
    """More calls than there was room for, of two shapes; nothing but the place of the second launch differs."""
    columns = ops.ColumnSums(2)
    now, later = [], []
    for rows in (40, 5, 40, 40):
        upstream, slope = matrix(dtype, device, rows, 24), matrix(dtype, device, rows, 48)
        weight, gamma = matrix(dtype, device, 24, 48), torch.randn(48, device=device)
        total, mean, rstd = matrix(dtype, device, rows, 48), *torch.randn(2, rows, device=device)
        for sums, found in ((None, now), (columns, later)):
            options = {"columns": sums, "backend": backend}
            found.append(ops.linear_gelu_backward(upstream, weight, slope, **options)[1:])
            norms = ops.linear_residual_norm_backward(upstream, weight, total, mean, rstd, gamma, **options)
            found.append(norms[1:4])
            if backend == "triton":
                found.append(ops.row_norm_backward(slope, total, mean, rstd, gamma, **options)[1:])
    columns.finish()
    for one, other in zip(now, later, strict=True):
        for value, expected in zip(other, one, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.thinned
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(37, 48, 100), (65, 33, 50), (130, 600, 40)])
def test_the_back_end_torch(dtype: torch.dtype, shape: tuple[int, int, int], device: torch.device) -> None:
    """PyTorch's product is rounded before the pass: a rounding more than the kernel with the product inside."""
    bound = {torch.float32: 2e-6, torch.float16: 1.2e-3, torch.bfloat16: 1e-2}[dtype]
    (rows, width, features), scale = shape, factors(shape[0], device)
    inputs, backward = forward_inputs(dtype, shape, device), backward_inputs(dtype, shape, device, True)
    x, weight, bias = inputs[:3]
    slope, upstream = (matrix(dtype, device, rows, each) for each in (width, features))
    with ops.backend("torch"):
        pairs = [
            (ops.linear_residual_norm(*inputs, scale=scale), "linear_residual_norm", (*inputs, 1e-5, scale)),
            (
                ops.linear_residual_norm_backward(*backward, scale=scale),
                "linear_residual_norm_backward",
                (*backward, scale),
            ),
            (ops.linear_gelu(x, weight, bias), "linear_gelu", (x, weight, bias)),
            (
                ops.linear_gelu_backward(upstream, backward[1], slope),
                "linear_gelu_backward",
                (upstream, backward[1], slope),
            ),
        ]
    for found, name, given in pairs:
        exact = [value.double() if isinstance(value, Tensor) else value for value in given]
        form = {"form": form_for(dtype)} if name == "linear_gelu" else {}
        for value, truth in zip(found, getattr(reference, name)(*exact, **form), strict=True):
            assert value.dtype in (dtype, torch.float32)
            assert relative_error(value, truth) < bound, name


def test_the_back_end_torch_refuses_what_registers_cannot_hold() -> None:
    with pytest.raises(RuntimeError, match="its pass covers rows of up to 4096 values, not 5000"):
        ops.row_norm(torch.zeros(1, 5000), *torch.zeros(2, 5000), backend="triton")
    with pytest.raises(RuntimeError, match="'torch' cannot run linear_residual_norm: its pass covers rows"):
        ops.linear_residual_norm(
            *(torch.zeros(1, 4), torch.zeros(5000, 4), torch.zeros(5000), torch.zeros(1, 5000)),
            *torch.zeros(2, 5000),
            backend="torch",
        )
