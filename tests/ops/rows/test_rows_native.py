"""The row passes of the compiled CPU extension and the products on a CPU's matrix unit: exactness, tails, determinism,
and what the raw functions refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F

from fastamr import ops
from fastamr.ops.rows import native as rows_native
from fastamr.testing import assert_as_good_as, relative_error

pytestmark = pytest.mark.extension
RAW = torch.ops.fastamr_native
SIZES = [(1, 16, 40), (37, 24, 100), (130, 256, 1000), (600, 64, 17)]


needs_unit = pytest.mark.matrix_unit
Products = Callable[[], list[torch.Tensor]]


@pytest.fixture(params=[pytest.param("unit", marks=needs_unit), "passes"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Products on the matrix unit with a pass at their end, and the library's product with a pass after it."""
    if request.param == "passes":
        monkeypatch.setattr(rows_native, "_parts", lambda dtype: 0)
    return str(request.param)


@pytest.fixture
def _settings() -> Iterator[None]:
    """Precision and threads belong to the process."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


def randn(*shape: int, dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(*shape, dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gelu_and_slope_over_the_whole_line(dtype: torch.dtype) -> None:
    """Every size of argument, the tails and the ends; the far tail keeps its relative precision."""
    u = torch.linspace(-14, 14, 40001, dtype=torch.float64)[None].to(dtype)
    exact = u.double().requires_grad_()
    h = exact * 0.5 * torch.erfc(-exact * 0.5**0.5)
    (slope,) = torch.autograd.grad(h.sum(), exact)
    found = [torch.empty_like(u), torch.empty_like(u)]
    RAW.gelu_rows_cpu(
        u.clone(), torch.zeros(u.shape[1], dtype=torch.promote_types(torch.float32, dtype)), *found
    )
    rounding = {torch.float32: 4e-7, torch.bfloat16: 5e-3, torch.float64: 1e-14}[dtype]
    assert relative_error(found[0], h) < rounding
    assert relative_error(found[1], slope) < rounding
    inside = (exact > -8) & (exact < 8)
    assert ((found[0].double() - h).abs() <= 8 * rounding * h.abs() + 1e-30)[inside].all()
    ends = torch.tensor([[float("-inf"), -1e30, -40.0, 0.0, 40.0, 1e30, float("inf"), float("nan")]]).to(
        dtype
    )
    wide = ends.repeat(1, 4)
    found = [torch.empty_like(wide), torch.empty_like(wide)]
    RAW.gelu_rows_cpu(wide, torch.zeros(32, dtype=torch.promote_types(torch.float32, dtype)), *found)
    assert torch.equal(found[0][0, 1:7], torch.relu(ends[0, 1:7]))
    assert torch.equal(found[1][0, 1:6].double(), torch.tensor([0, 0, 0.5, 1, 1]).double())
    assert found[0][0, 7].isnan()


@pytest.mark.parametrize(("rows", "width", "hidden"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_linear_gelu_and_backward(form: str, dtype: torch.dtype, rows: int, width: int, hidden: int) -> None:
    compute = torch.promote_types(torch.float32, dtype)
    x, weight, bias = (
        randn(rows, width, dtype=dtype),
        randn(hidden, width, dtype=dtype, scale=0.1),
        randn(hidden, dtype=compute),
    )
    upstream, following = randn(rows, width, dtype=dtype), randn(width, hidden, dtype=dtype, scale=0.1)

    def truth(dtype: torch.dtype) -> list[torch.Tensor]:
        u = F.linear(x.to(dtype), weight.to(dtype), bias.to(dtype)).detach().requires_grad_()
        h = F.gelu(u)
        (du,) = torch.autograd.grad(h, u, upstream.to(dtype) @ following.to(dtype))
        return [h.detach(), du, du.sum(0)]

    h, slope = ops.linear_gelu(x, weight, bias, backend="cpp")
    assert slope is not None
    found = [h, *ops.linear_gelu_backward(upstream, following, slope, backend="cpp")]
    assert [each.dtype for each in found] == [dtype, dtype, compute]
    for mine, exact, peer in zip(found, truth(torch.float64), truth(dtype), strict=True):
        assert_as_good_as(mine, exact, peer, factor=3, floor=2e-7)
    only, none = ops.linear_gelu(x, weight, bias, slope=False, backend="cpp")
    assert none is None
    assert torch.equal(only, h)


@pytest.mark.parametrize(("skip", "scaled"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(("rows", "width", "hidden"), SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_linear_residual_norm_and_backward(
    form: str, dtype: torch.dtype, rows: int, width: int, hidden: int, skip: bool, scaled: bool
) -> None:
    compute = torch.promote_types(torch.float32, dtype)
    x, weight = randn(rows, hidden, dtype=dtype), randn(width, hidden, dtype=dtype, scale=0.1)
    bias, gamma, beta = (randn(width, dtype=compute) for _ in range(3))
    residual, past = randn(rows, width, dtype=dtype), randn(rows, width, dtype=dtype) if skip else None
    upstream, following = randn(rows, hidden, dtype=dtype), randn(hidden, width, dtype=dtype, scale=0.1)
    scale = torch.tensor([0.0, 2.5, 1.0]).to(compute).repeat(rows)[:rows] if scaled else None
    total, normed, mean, rstd = ops.linear_residual_norm(
        x, weight, bias, residual, gamma, beta, 1e-3, scale=scale, backend="cpp"
    )
    backward = ops.linear_residual_norm_backward(
        upstream, following, total, mean, rstd, gamma, past, scale=scale, backend="cpp"
    )

    def truth(dtype: torch.dtype) -> list[torch.Tensor]:
        factors = torch.ones(rows, 1, dtype=dtype) if scale is None else scale[:, None].to(dtype)
        sums = factors * F.linear(x.to(dtype), weight.to(dtype), bias.to(dtype)) + residual.to(dtype)
        leaves = [each.to(dtype).clone().requires_grad_() for each in (total, gamma, beta)]
        norm = F.layer_norm(leaves[0], (width,), leaves[1], leaves[2], 1e-3)
        dx, dgamma, dbeta = torch.autograd.grad(norm, leaves, upstream.to(dtype) @ following.to(dtype))
        dx = dx if past is None else dx + past.to(dtype)
        branch = factors * dx
        return [sums, norm.detach(), dx, dgamma, dbeta, branch.sum(0), *([branch] if scaled else [])]

    for mine, exact, peer in zip((total, normed, *backward), truth(torch.float64), truth(dtype), strict=True):
        assert_as_good_as(mine, exact, peer, factor=3, floor=1e-6 if dtype == torch.float32 else 1e-14)


def products(rows: int, dtype: torch.dtype) -> dict[str, Products]:
    """Calls of every op whose product the matrix unit computes; each gives its results."""
    width, hidden = 70, 200
    x, h = randn(rows, width, dtype=dtype), randn(rows, hidden, dtype=dtype)
    up, down = randn(hidden, width, dtype=dtype, scale=0.1), randn(width, hidden, dtype=dtype, scale=0.1)
    bias, short = randn(hidden, dtype=torch.float32), randn(width, dtype=torch.float32)
    slope, total = randn(rows, hidden, dtype=dtype), randn(rows, width, dtype=dtype)
    mean, rstd = torch.randn(rows), torch.rand(rows) + 0.5

    def gelu() -> list[torch.Tensor]:
        return [each for each in ops.linear_gelu(x, up, bias, backend="cpp") if each is not None]

    return {
        "row_linear": lambda: [ops.row_linear(x, up, bias, backend="cpp")],
        "row_linear_backward": lambda: [ops.row_linear_backward(h, up, backend="cpp")],
        "linear_gelu": gelu,
        "linear_gelu_backward": lambda: list(ops.linear_gelu_backward(x, down, slope, backend="cpp")),
        "linear_residual_norm": lambda: list(
            ops.linear_residual_norm(h, down, short, total, short, short, backend="cpp")
        ),
        "linear_residual_norm_backward": lambda: list(
            ops.linear_residual_norm_backward(h, up, total, mean, rstd, short, total, backend="cpp")
        ),
        "weight_gradient": lambda: [ops.weight_gradient(h, x, backend="cpp")],
    }


@needs_unit
@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("op", list(products(1, torch.float32)))
def test_products_follow_the_precision(op: str) -> None:
    """The distance from the exact product shrinks with the bits; ``high`` and ``highest`` are 16 and 24 of them."""
    run, found = products(300, torch.float32)[op], {}
    for precision in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(precision)
        found[precision] = run()
    for exact, high, medium in zip(*found.values(), strict=True):
        assert 2e-7 < relative_error(high, exact) < 4e-5
        assert 1e-4 < relative_error(medium, exact) < 2e-2
        assert relative_error(medium, exact) > 50 * relative_error(high, exact)


@needs_unit
@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("op", list(products(1, torch.float32)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_do_not_depend_on_the_number_of_threads(op: str, dtype: torch.dtype) -> None:
    run, found = products(333, dtype)[op], []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(run())
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


@pytest.mark.parametrize("op", ["linear_gelu", "linear_residual_norm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_without_rows_sums_are_zero(form: str, op: str, dtype: torch.dtype) -> None:
    compute = torch.promote_types(torch.float32, dtype)
    x, weight, vector = randn(0, 6, dtype=dtype), randn(9, 6, dtype=dtype), randn(9, dtype=compute)
    wide = randn(0, 9, dtype=dtype)
    if op == "linear_gelu":
        h, _ = ops.linear_gelu(x, weight, vector, backend="cpp")
        empty, *sums = ops.linear_gelu_backward(x, weight.new_ones(6, 9), wide, backend="cpp")
    else:
        h, _, mean, rstd = ops.linear_residual_norm(x, weight, vector, wide, vector, vector, backend="cpp")
        empty, *sums = ops.linear_residual_norm_backward(
            x, weight.new_ones(6, 9), wide, mean, rstd, vector, backend="cpp"
        )
    assert h.shape == empty.shape == (0, 9)
    assert not torch.stack(sums).any()


def test_a_constant_row_and_a_far_mean() -> None:
    """Two passes over a row: no cancellation where its mean is a thousand times its spread."""
    x = torch.randn(8, 64, dtype=torch.float64) + 1000
    normed, _, _ = ops.row_norm(x.float(), torch.ones(64), torch.zeros(64), 1e-5, backend="cpp")
    assert relative_error(normed, F.layer_norm(x.float().double(), (64,))) < 1e-4
    flat, mean, rstd = ops.row_norm(
        torch.full((2, 5), 3.0), torch.ones(5), torch.zeros(5), 1e-4, backend="cpp"
    )
    assert not flat.any()
    torch.testing.assert_close((mean, rstd), (torch.full((2,), 3.0), torch.full((2,), 100.0)))


def test_neighbours_stay_untouched() -> None:
    """Outputs lie inside larger buffers; numbers around them, and columns that fill no vector, keep their place."""
    for columns in (1, 15, 16, 17, 33):
        buffers = [torch.full((columns * 7 + 40,), 7.0) for _ in range(2)]
        h, slope = (each[20 : 20 + 7 * columns].view(7, columns) for each in buffers)
        u, bias = torch.randn(7, columns), torch.randn(columns)
        RAW.gelu_rows_cpu(u.clone(), bias, h, slope)
        torch.testing.assert_close(h, F.gelu(u + bias))
        assert all((each[:20] == 7).all() and (each[-20:] == 7).all() for each in buffers)


@pytest.mark.usefixtures("_settings")
def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    x, slope = torch.randn(2, 999, 70)

    def sums(threads: int) -> list[torch.Tensor]:
        torch.set_num_threads(threads)
        columns = torch.empty(70)
        RAW.gelu_backward_rows_cpu(x.clone(), slope, torch.empty_like(x), columns)
        _, mean, rstd = ops.row_norm(x, slope[0], slope[1], backend="cpp")
        return [columns, *ops.row_norm_backward(slope, x, mean, rstd, slope[2], x, backend="cpp")]

    for one, other in zip(sums(1), sums(3), strict=True):
        assert torch.equal(one, other)


def test_raw_functions_refuse_what_would_write_outside() -> None:
    x, bias = torch.randn(4, 6), torch.randn(6)
    with pytest.raises(RuntimeError, match="h must be a contiguous CPU tensor of 24 elements"):
        RAW.gelu_rows_cpu(x, bias, torch.empty(4, 5), None)
    with pytest.raises(RuntimeError, match="bias must be a contiguous CPU tensor of 6 elements"):
        RAW.gelu_rows_cpu(x, bias.double(), torch.empty(4, 6), None)
    with pytest.raises(RuntimeError, match="sums must be"):
        RAW.gelu_backward_rows_cpu(x, x, torch.empty(4, 6), torch.empty(5))
    with pytest.raises(RuntimeError, match="cover float32, bfloat16 and float64"):
        RAW.gelu_rows_cpu(x.half(), bias, x.half(), None)
    with pytest.raises(RuntimeError, match="rows must form a matrix"):
        RAW.gelu_rows_cpu(x[0], bias, x[0], None)
    mean, rstd, vectors = torch.empty(4), torch.empty(4), (bias, bias)
    for added, scale in ((bias, None), (None, mean)):
        with pytest.raises(RuntimeError, match="which needs a place"):
            RAW.norm_rows_cpu(x, added, None, *vectors, 1e-5, scale, None, torch.empty(4, 6), mean, rstd)
    with pytest.raises(RuntimeError, match="mean must be"):
        RAW.norm_rows_cpu(x, None, None, *vectors, 1e-5, None, None, torch.empty(4, 6), mean[:3], rstd)
    with pytest.raises(RuntimeError, match="scale must be a contiguous CPU tensor of 4 elements"):
        RAW.norm_rows_cpu(x, bias, x, *vectors, 1e-5, bias, x, torch.empty(4, 6), mean, rstd)
    dx, sums = torch.empty(4, 6), torch.empty(3, 6)
    with pytest.raises(RuntimeError, match="skip must be"):
        RAW.norm_backward_rows_cpu(x, x, mean, rstd, bias, x.T, None, dx, None, sums)
    for scale, dbranch in ((mean, None), (None, dx)):
        with pytest.raises(RuntimeError, match="a scaled branch needs a place"):
            RAW.norm_backward_rows_cpu(x, x, mean, rstd, bias, None, scale, dx, dbranch, sums)
    with pytest.raises(RuntimeError, match="dbranch must be a contiguous CPU tensor of 24 elements"):
        RAW.norm_backward_rows_cpu(x, x, mean, rstd, bias, None, mean, dx, dx[:2], sums)
