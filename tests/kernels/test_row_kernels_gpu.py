"""What only a GPU can show of the kernels on flat rows: the papers' sizes, CUDA graphs, tensors beyond 2**31 numbers.

Runs from a bare checkout: ``PYTHONPATH=. python -m pytest tests/kernels -m gpu``.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastamr import ops, reference

from .rows import assert_exact_sums, assert_rounded_once, doubled, matrix

pytestmark = pytest.mark.gpu

WIDTH, FEATURES = 256, 1024
DEVICE = torch.device("cuda")


def inputs(rows: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """What a layer's forward and backward take."""
    values = {name: matrix(dtype, DEVICE, rows, WIDTH) for name in ("x", "upstream", "skip")}
    values["up"] = matrix(dtype, DEVICE, FEATURES, WIDTH, scale=WIDTH**-0.5)
    values["down"] = matrix(dtype, DEVICE, WIDTH, FEATURES, scale=FEATURES**-0.5)
    values["bias"] = torch.randn(FEATURES, device=DEVICE)
    values["vector"] = torch.randn(WIDTH, device=DEVICE)
    return values


def chain(given: dict[str, Tensor]) -> list[Tensor]:
    """An MLP's forward and backward, every kernel once."""
    x, up, down, vector = (given[name] for name in ("x", "up", "down", "vector"))
    h, slope = ops.linear_gelu(x, up, given["bias"])
    total, normed, mean, rstd = ops.linear_residual_norm(h, down, vector, x, vector, vector)
    du, columns = ops.linear_gelu_backward(given["upstream"], down, slope)
    gradients = ops.linear_residual_norm_backward(du, up, total, mean, rstd, vector, given["skip"])
    return [h, slope, total, normed, mean, rstd, du, columns, *gradients, ops.weight_gradient(du, x)]


@pytest.mark.parametrize("rows", [19200, 32000, 31999])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_papers_sizes(dtype: torch.dtype, rows: int) -> None:
    given = inputs(rows, dtype)
    x, up, down, vector = (given[name] for name in ("x", "up", "down", "vector"))
    h, slope, total, normed, mean, rstd, du, columns, dx, *rest = chain(given)
    form = "erf" if dtype == torch.float32 else "tanh"
    truth = reference.linear_gelu(*doubled(x, up, given["bias"]), form=form)
    assert_rounded_once(h, truth[0], dtype)
    assert_rounded_once(slope, truth[1], dtype)
    exact = reference.linear_residual_norm(*doubled(h, down, vector, x, vector, vector))
    assert_rounded_once(total, exact[0], dtype)
    wide = total.double()
    expected = torch.nn.functional.layer_norm(wide, (WIDTH,), vector.double(), vector.double())
    assert_rounded_once(normed, expected, dtype)
    torch.testing.assert_close(mean.double(), wide.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        rstd.double(), (wide.var(1, unbiased=False) + 1e-5).rsqrt(), rtol=1e-4, atol=1e-5
    )
    back = reference.linear_gelu_backward(*doubled(given["upstream"], down, slope))
    assert_rounded_once(du, back[0], dtype)
    assert_exact_sums(columns, back[1])
    last = reference.linear_residual_norm_backward(*doubled(du, up, total, mean, rstd, vector, given["skip"]))
    assert_rounded_once(dx, last[0], dtype)
    for found, sums in zip(rest, (*last[1:], du.double().T @ x.double()), strict=True):
        assert_exact_sums(found, sums)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_captured_in_a_graph(dtype: torch.dtype) -> None:
    given = inputs(4800, dtype)
    expected = chain(given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        chain(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = chain(given)
    for _ in range(2):
        for value in captured:
            value.fill_(0)
        graph.replay()
        for value, other in zip(captured, expected, strict=True):
            assert torch.equal(value, other)


@pytest.mark.slow
def test_beyond_two_to_the_31_numbers() -> None:
    """The last rows of 2.2 million give the same as alone."""
    rows, last = 2_200_000, 128
    given = inputs(rows, torch.bfloat16)
    x, up, down, vector = (given[name] for name in ("x", "up", "down", "vector"))
    tail = x[-last:].clone()
    h, slope = ops.linear_gelu(x, up, given["bias"])
    assert h.numel() > 2**31
    own = ops.linear_gelu(tail, up, given["bias"])
    assert torch.equal(h[-last:], own[0])
    assert torch.equal(slope[-last:], own[1])
    total, normed, mean, rstd = ops.linear_residual_norm(h, down, vector, x, vector, vector)
    alone = ops.linear_residual_norm(own[0], down, vector, tail, vector, vector)
    assert torch.equal(total[-last:], alone[0])
    assert torch.equal(normed[-last:], alone[1])
    du, _ = ops.linear_gelu_backward(x, down, slope)
    assert torch.equal(du[-last:], ops.linear_gelu_backward(tail, down, own[1])[0])
    dx = ops.linear_residual_norm_backward(h, up, total, mean, rstd, vector)[0]
    found = ops.linear_residual_norm_backward(own[0], up, alone[0], alone[2], alone[3], vector)[0]
    assert torch.equal(dx[-last:], found)
    assert torch.isfinite(ops.weight_gradient(h, x)).all()
