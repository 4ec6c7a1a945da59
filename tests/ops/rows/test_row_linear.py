"""A linear layer of rows: its meaning, its backward, the precisions of the matrix unit, and what the op refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from fastamr import native, ops
from fastamr.ops.common.backends import Problem, choose
from fastamr.testing import relative_error
from fastamr.training.update.precision import matmul_precision

needs_unit = pytest.mark.matrix_unit
BACKENDS = [pytest.param("cpp", marks=needs_unit), "torch", "reference"]


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Precision and threads belong to the process."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)


def operands(rows: int, width: int, features: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """x, weight, bias in the accumulator's dtype, upstream gradient."""
    x, upstream = (
        torch.randn(rows, width, dtype=torch.float64),
        torch.randn(rows, features, dtype=torch.float64),
    )
    weight, bias = (
        torch.randn(features, width, dtype=torch.float64),
        torch.randn(features, dtype=torch.float64),
    )
    compute = torch.promote_types(torch.float32, dtype)
    return x.to(dtype), (weight / width**0.5).to(dtype), bias.to(compute), upstream.to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("rows", "width", "features"), [(1, 24, 40), (37, 48, 17), (130, 256, 100), (600, 33, 65), (5, 1, 1)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_equals_autograd_of_torch(
    backend: str, rows: int, width: int, features: int, dtype: torch.dtype
) -> None:
    if backend == "cpp" and dtype not in (torch.float32, torch.bfloat16):
        pytest.skip("the matrix unit covers float32 and bfloat16")
    x, weight, bias, upstream = operands(rows, width, features, dtype)
    exact = x.double().clone().requires_grad_()
    truth = F.linear(exact, weight.double(), bias.double())
    (dx,) = torch.autograd.grad(truth, exact, upstream.double())

    found = ops.row_linear(x, weight, bias, backend=backend)
    back = ops.row_linear_backward(upstream, weight, backend=backend)
    assert found.dtype == back.dtype == dtype
    assert found.is_contiguous()
    assert back.is_contiguous()
    # The library adds a bias of 16 bits.
    allowed = {torch.float64: 1e-14, torch.float32: 5e-7, torch.bfloat16: 5e-3, torch.float16: 7e-4}[dtype]
    assert relative_error(found, truth) < allowed
    assert relative_error(back, dx) < allowed
    assert relative_error(ops.row_linear(x, weight, bias.to(dtype), backend=backend), truth) < allowed


@pytest.mark.parametrize("backend", BACKENDS)
def test_needs_no_autocast_and_no_rows(backend: str) -> None:
    x, weight, bias, upstream = operands(37, 16, 20, torch.float32)
    plain = [
        ops.row_linear(x, weight, bias, backend=backend),
        ops.row_linear_backward(upstream, weight, backend=backend),
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [
            ops.row_linear(x, weight, bias, backend=backend),
            ops.row_linear_backward(upstream, weight, backend=backend),
        ]
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))
    assert ops.row_linear(x[:0], weight, bias, backend=backend).shape == (0, 20)
    assert ops.row_linear_backward(upstream[:0], weight, backend=backend).shape == (0, 16)
    found = ops.row_linear(x[:, :0].contiguous(), weight[:, :0].contiguous(), bias, backend=backend)
    assert torch.equal(found, bias.expand(37, 20))


@needs_unit
def test_precision_is_the_one_that_the_user_chose() -> None:
    """24, 16 and 8 bits of each number; all of them no worse than the library's float32 product."""
    x, weight, bias, upstream = operands(300, 256, 200, torch.float32)
    truth = [F.linear(x.double(), weight.double(), bias.double()), upstream.double() @ weight.double()]
    torch.set_float32_matmul_precision("highest")
    peers = [torch.mm(x, weight.T).add_(bias), torch.mm(upstream, weight)]
    for precision, lowest, highest in (("highest", 0.0, 2e-7), ("high", 1e-6, 1e-5), ("medium", 1e-3, 5e-3)):
        torch.set_float32_matmul_precision(precision)
        found = [
            ops.row_linear(x, weight, bias, backend="cpp"),
            ops.row_linear_backward(upstream, weight, backend="cpp"),
        ]
        for value, exact, peer in zip(found, truth, peers, strict=True):
            error = relative_error(value, exact)
            assert lowest < error < highest
            assert precision != "highest" or error <= relative_error(peer, exact)
    low = ops.row_linear(x.bfloat16(), weight.bfloat16(), bias, backend="cpp")
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(low, ops.row_linear(x.bfloat16(), weight.bfloat16(), bias, backend="cpp"))


@needs_unit
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    x, weight, bias, upstream = operands(333, 70, 90, dtype)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(
            (
                ops.row_linear(x, weight, bias, backend="cpp"),
                ops.row_linear_backward(upstream, weight, backend="cpp"),
            )
        )
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@needs_unit
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_ends_of_the_numbers(precision: str) -> None:
    """Infinity stays infinite and NaN NaN, in its own row; the largest float is one; denormal numbers count as 0."""
    x, weight, bias, _ = operands(20, 40, 30, torch.float32)
    largest = torch.finfo(torch.float32).max
    with matmul_precision(precision):
        for number in (float("inf"), float("-inf"), float("nan"), 0.9 * largest):
            spoiled = x.clone()
            spoiled[3, 35] = number
            found = ops.row_linear(spoiled, weight / weight.abs().max(), bias, backend="cpp")
            expected = F.linear(spoiled, weight / weight.abs().max(), bias)
            assert torch.equal(found.isfinite(), expected.isfinite())
            assert torch.equal(found.isnan(), expected.isnan())
            assert torch.equal(found[3].sign(), expected[3].sign()) or expected[3].isnan().all()
        if precision != "medium":  # with one part, what is above the largest bfloat16 number is infinite
            found = ops.row_linear(
                torch.full((1, 32), largest), torch.full((1, 32), 0.01), torch.zeros(1), backend="cpp"
            )
            assert found.item() == pytest.approx(0.32 * largest, rel=1e-4)
        tiny = torch.full((1, 32), 1e-39)
        assert ops.row_linear(tiny, torch.ones(1, 32), torch.zeros(1), backend="cpp").item() == 0


@needs_unit
def test_other_products_go_on_between_its_calls() -> None:
    """The library sets the unit up for itself, and must find it as it left it."""
    x, weight, bias, _ = operands(37, 64, 48, torch.bfloat16)
    before = torch.mm(x, weight.T)
    for _ in range(3):
        ops.row_linear(x, weight, bias, backend="cpp")
        assert torch.equal(torch.mm(x, weight.T), before)


def test_the_unit_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("cpu", torch.float32)
    if native.why_not("cpu") is None:
        monkeypatch.setattr(native, "has_matrix_unit", lambda: True)
        assert choose("row_linear", problem) == choose("weight_gradient", problem) == "cpp"
        assert choose("row_linear", Problem("cpu", torch.float64)) == "torch"
        assert choose("row_linear", Problem("cpu", torch.bfloat16)) == "torch"
        assert choose("row_linear", Problem("cpu", torch.bfloat16), "cpp") == "cpp"
    monkeypatch.setattr(native, "has_matrix_unit", lambda: False)
    assert choose("row_linear", problem) == choose("weight_gradient", problem) == "torch"


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, upstream = operands(6, 16, 20, torch.float32)
    with pytest.raises(ValueError, match=r"weight must have shape \(F, D\) = \(20, 16\), got \(20, 8\)"):
        ops.row_linear(x, weight[:, :8], bias)
    with pytest.raises(ValueError, match=r"bias must have shape \(F,\) = \(20,\), got \(8,\)"):
        ops.row_linear(x, weight, bias[:8])
    with pytest.raises(TypeError, match="weight must be of dtype float32"):
        ops.row_linear(x, weight.double(), bias)
    with pytest.raises(TypeError, match="bias must be of dtype float32"):
        ops.row_linear(x, weight, bias.double())
    with pytest.raises(ValueError, match="x has strides"):
        ops.row_linear(x.T.contiguous().T, weight, bias)
    with pytest.raises(RuntimeError, match="weight requires a gradient"):
        ops.row_linear(x, weight.clone().requires_grad_(), bias)
    with pytest.raises(ValueError, match=r"weight must have shape \(F, D\) = \(20, 8\), got \(16, 8\)"):
        ops.row_linear_backward(upstream, weight[:16, :8].contiguous())
    with pytest.raises(
        RuntimeError, match="'cpp' cannot run row_linear: it covers float32, bfloat16, float64"
    ):
        ops.row_linear(x.half(), weight.half(), bias, backend="cpp")
    if native.why_not("cpu") is None:
        with pytest.raises(RuntimeError, match="the matrix unit covers float32 and bfloat16, not float64"):
            ops.row_linear(x.double(), weight.double(), bias.double(), backend="cpp")
        monkeypatch.setattr(native, "has_matrix_unit", lambda: False)
        with pytest.raises(RuntimeError, match=r"the processor has no matrix unit \(AMX\)"):
            ops.row_linear(x, weight, bias, backend="cpp")


@needs_unit
def test_raw_functions_refuse_what_would_write_outside() -> None:
    raw = torch.ops.fastamr_native
    x, weight, bias, upstream = operands(6, 16, 20, torch.float32)
    out, sums, vector = torch.empty(6, 20), torch.empty(20), torch.empty(6)
    with pytest.raises(RuntimeError, match="out must be a contiguous CPU tensor of 120 elements"):
        raw.linear_product_cpu(x, weight, True, bias, 3, out[:5])
    with pytest.raises(RuntimeError, match="weight must be a contiguous CPU tensor of 256 elements"):
        raw.linear_product_cpu(x, weight, False, None, 3, torch.empty(6, 16))
    with pytest.raises(RuntimeError, match="parts must be 1, 2 or 3, got 4"):
        raw.linear_product_cpu(x, weight, True, bias, 4, out)
    with pytest.raises(RuntimeError, match="the matrix unit covers float32 and bfloat16"):
        raw.linear_product_cpu(x.double(), weight.double(), True, None, 3, out.double())
    with pytest.raises(RuntimeError, match="slope must be"):
        raw.gelu_product_cpu(x, weight, bias, 3, out, torch.empty(6, 19))
    with pytest.raises(RuntimeError, match="sums must be"):
        raw.gelu_backward_product_cpu(upstream, weight, x, 3, torch.empty(6, 16), sums)
    with pytest.raises(RuntimeError, match="rstd must be"):
        raw.norm_product_cpu(x, weight, bias, out, bias, bias, 1e-5, 3, out, out, vector, vector[:5])
    with pytest.raises(RuntimeError, match="sums must be"):
        raw.norm_backward_product_cpu(
            upstream, weight, x, vector, vector, x[0], None, 3, torch.empty(6, 16), sums
        )
    with pytest.raises(RuntimeError, match="x must be"):
        raw.weight_gradient_cpu(upstream, x[:5], 3, torch.empty(20, 16))
