"""Layer norm of rows: its meaning, its backward, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.testing import relative_error

BACKENDS = [
    pytest.param("cpp", marks=pytest.mark.extension),
    "torch",
    "reference",
]


def operands(rows: int, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Rows and upstream gradient, gamma and beta in the accumulator's dtype; away from zero mean and unit variance."""
    compute = torch.promote_types(torch.float32, dtype)
    x, upstream, skip = (torch.randn(rows, width, dtype=torch.float64) for _ in range(3))
    gamma, beta = torch.randn(2, width, dtype=torch.float64)
    return (3 * x + 5).to(dtype), upstream.to(dtype), skip.to(dtype), gamma.to(compute), beta.to(compute)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rows", "width"), [(1, 24), (37, 48), (130, 256), (5, 1000), (2000, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_autograd_of_torch(backend: str, rows: int, width: int, dtype: torch.dtype) -> None:
    x, upstream, skip, gamma, beta = operands(rows, width, dtype)
    exact = [each.double().clone().requires_grad_() for each in (x, gamma, beta)]
    truth = F.layer_norm(exact[0], (width,), exact[1], exact[2], 1e-5)
    dx, dgamma, dbeta = torch.autograd.grad(truth, exact, upstream.double())
    expected = [truth, dx + skip.double(), dgamma, dbeta, (dx + skip.double()).sum(0)]

    normed, mean, rstd = ops.row_norm(x, gamma, beta, 1e-5, backend=backend)
    backward = ops.row_norm_backward(upstream, x, mean, rstd, gamma, skip, backend=backend)
    assert normed.dtype == backward[0].dtype == dtype
    assert {each.dtype for each in (mean, rstd, *backward[1:])} == {gamma.dtype}
    allowed = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 6e-3}[dtype]
    for found, value in zip((normed, *backward), expected, strict=True):
        assert relative_error(found, value) < allowed
    without = ops.row_norm_backward(upstream, x, mean, rstd, gamma, backend=backend)
    assert relative_error(without[0], dx) < allowed


@pytest.mark.parametrize("backend", BACKENDS)
def test_needs_no_autocast_and_no_rows(backend: str) -> None:
    x, _, _, gamma, beta = operands(6, 16, torch.float32)
    plain = ops.row_norm(x, gamma, beta, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = ops.row_norm(x, gamma, beta, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    none = x[:0]
    normed, mean, rstd = ops.row_norm(none, gamma, beta, backend=backend)
    assert (normed.shape, mean.shape) == ((0, 16), (0,))
    _, dgamma, dbeta, columns = ops.row_norm_backward(none, none, mean, rstd, gamma, backend=backend)
    assert not torch.stack([dgamma, dbeta, columns]).any()


def test_refusals() -> None:
    x, upstream, skip, gamma, beta = operands(6, 16, torch.float32)
    _, mean, rstd = ops.row_norm(x, gamma, beta)
    with pytest.raises(ValueError, match=r"gamma must have shape \(D,\) = \(16,\), got \(8,\)"):
        ops.row_norm(x, gamma[:8], beta)
    with pytest.raises(TypeError, match="beta must be of dtype float32"):
        ops.row_norm(x, gamma, beta.double())
    with pytest.raises(ValueError, match="x has strides"):
        ops.row_norm(x.T.contiguous().T, gamma, beta)
    with pytest.raises(RuntimeError, match="gamma requires a gradient"):
        ops.row_norm(x, gamma.clone().requires_grad_(), beta)
    with pytest.raises(ValueError, match=r"skip must have shape \(M, D\)"):
        ops.row_norm_backward(upstream, x, mean, rstd, gamma, skip[:3])
    with pytest.raises(ValueError, match=r"mean must have shape \(M,\)"):
        ops.row_norm_backward(upstream, x, mean[:3], rstd, gamma)
    with pytest.raises(RuntimeError, match="'cpp' cannot run row_norm: it covers float32, bfloat16, float64"):
        ops.row_norm(x.half(), gamma, beta, backend="cpp")
