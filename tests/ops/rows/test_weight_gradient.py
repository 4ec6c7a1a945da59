"""What the op means: autograd's gradient of a linear layer's weight, and its argument checks."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from fastamr import native, ops
from fastamr.ops.common import tuned
from fastamr.ops.common.backends import Choice, Problem, choose, explain
from fastamr.ops.common.record import Measured, Record, Tried
from fastamr.ops.common.tuned import class_of
from fastamr.testing import relative_error

module = sys.modules["fastamr.ops.rows.weight_gradient"]  # the attribute of ops is the function


def test_it_is_the_gradient_of_a_linear_layer() -> None:
    x, upstream = torch.randn(11, 4, dtype=torch.float64), torch.randn(11, 6, dtype=torch.float64)
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    F.linear(x, weight).backward(upstream)
    for backend in ("torch", "reference"):
        found = ops.weight_gradient(upstream, x, backend=backend)
        torch.testing.assert_close(found, weight.grad, rtol=1e-13, atol=1e-14)


needs_unit = pytest.mark.matrix_unit


@pytest.mark.parametrize("backend", ["torch", "reference", pytest.param("cpp", marks=needs_unit)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_float32(dtype: torch.dtype, backend: str) -> None:
    if backend == "cpp" and dtype == torch.float16:
        pytest.skip("the matrix unit covers float32 and bfloat16")
    upstream, x = torch.randn(500, 6).to(dtype), torch.randn(500, 4).to(dtype)
    found = ops.weight_gradient(upstream, x, backend=backend)
    assert found.dtype == torch.float32
    # The library rounds the sums once on a CPU; none of them is rounded on the way.
    rounded = backend == "torch" and dtype != torch.float32
    bound = 0.4 * torch.finfo(dtype).eps if rounded else 1e-6
    assert relative_error(found, upstream.double().T @ x.double()) < bound
    out = torch.full((6, 4), float("nan"))
    assert ops.weight_gradient(upstream, x, out, backend=backend) is out
    assert torch.equal(out, found)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.weight_gradient(upstream, x, backend=backend), found)


def test_without_rows_the_gradient_is_zero() -> None:
    out = torch.full((6, 4), float("nan"))
    for backend in ("torch", "reference", *(("cpp",) if native.has_matrix_unit() else ())):
        assert (ops.weight_gradient(torch.randn(0, 6), torch.randn(0, 4), out, backend=backend) == 0).all()


@needs_unit
@pytest.mark.parametrize(
    ("rows", "features", "width"), [(1, 3, 5), (33, 70, 17), (1024, 40, 40), (1025, 31, 65), (2100, 600, 3)]
)
def test_the_matrix_unit(rows: int, features: int, width: int) -> None:
    """Each precision within its bounds, the same bits for any number of threads; rows by slices of 1,024."""
    upstream, x = torch.randn(rows, features), torch.randn(rows, width)
    truth = upstream.double().T @ x.double()
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        peer = relative_error(torch.mm(upstream.T, x), truth)
        for precision, bound in (("highest", max(2e-7, peer)), ("high", 1.5e-5), ("medium", 8e-3)):
            torch.set_float32_matmul_precision(precision)
            found = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.append(ops.weight_gradient(upstream, x, backend="cpp"))
            assert relative_error(found[0], truth) < bound
            assert torch.equal(found[0], found[1])
            assert torch.equal(found[0], found[2])
            assert precision == "highest" or relative_error(found[0], truth) > 0.1 * bound
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])


def test_the_library_runs_where_no_measurement_speaks_for_the_kernel() -> None:
    sizes = {"rows": 19200, "outputs": 1024, "inputs": 256}
    assert choose("weight_gradient", Problem("cuda", torch.bfloat16, (), sizes)) == "torch"
    assert choose("weight_gradient", Problem("cuda", torch.bfloat16, (), sizes), "triton") == "triton"


@pytest.mark.parametrize("op", ["linear_gelu", "linear_residual_norm"])
def test_products_inside_kernels_wait_for_a_measurement_too(op: str) -> None:
    """Without a record the library multiplies and a kernel passes over the product; a record may say otherwise."""
    sizes = {"rows": 32_000, "hidden": 1024, "width": 256}
    for dtype in (torch.float16, torch.bfloat16):
        call = Problem("cuda", dtype, (), sizes)
        assert choose(op, call) == "torch"
        assert explain(op, call) == Choice(op, "torch", {}, "built in")
        assert choose(op, call, "triton") == "triton"
        fastest = {"triton": Tried(ms=1.0), "torch": Tried(ms=2.0)}
        for tried, backend in ((fastest, "triton"), ({"torch": Tried(failed="wrong")}, "triton")):
            shape = class_of(op, dtype, (), sizes)
            measured = Measured(shape, backend if tried is fastest else None, tried)
            with tuned.using("cuda", Record({}, (measured,))):
                assert choose(op, call) == backend
    assert choose(op, Problem("cuda", torch.float32)) == "reference", "exact products: the library's ground"
    assert choose(op, Problem("cuda", torch.float32), "triton") == "triton"
    assert choose(op, Problem("cuda", torch.float64)) == "reference"


def test_arguments_are_checked() -> None:
    upstream, x = torch.randn(5, 6), torch.randn(5, 4)
    with pytest.raises(ValueError, match=r"x must have shape \(M, D\) = \(5, 4\), got \(3, 4\)"):
        ops.weight_gradient(upstream, x[:3])
    with pytest.raises(TypeError, match="x must be of dtype float32, got bfloat16"):
        ops.weight_gradient(upstream, x.bfloat16())
    with pytest.raises(TypeError, match="out must be of dtype float32, got bfloat16"):
        ops.weight_gradient(upstream.bfloat16(), x.bfloat16(), torch.zeros(6, 4).bfloat16())
    with pytest.raises(ValueError, match=r"out must have shape \(F, D\) = \(6, 4\), got \(4, 6\)"):
        ops.weight_gradient(upstream, x, torch.zeros(4, 6))
    with pytest.raises(RuntimeError, match="upstream requires a gradient and this op carries none"):
        ops.weight_gradient(upstream.requires_grad_(), x)


@pytest.mark.parametrize("backend", ["torch", "reference", None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_group_is_one_after_the_other(dtype: torch.dtype, backend: str | None) -> None:
    shapes = [(11, 6, 4), (11, 4, 6), (3, 5, 5), (0, 2, 3), (11, 1, 1)]
    pairs = [(torch.randn(m, f).to(dtype), torch.randn(m, d).to(dtype)) for m, f, d in shapes]
    found = ops.weight_gradients(pairs, backend=backend)
    assert [tuple(value.shape) for value in found] == [(f, d) for _, f, d in shapes]
    for value, (upstream, x) in zip(found, pairs, strict=True):
        assert torch.equal(value, ops.weight_gradient(upstream, x, backend=backend))
    assert ops.weight_gradients([]) == []


def test_groups_wait_for_a_measurement_too() -> None:
    shapes = [(256, 1024), (1024, 256), (256, 256), (768, 256)]
    like = torch.empty(4, 4, dtype=torch.bfloat16, device="meta")
    sizes = {
        f"{name}{i}": pair[k] for i, pair in enumerate(shapes) for k, name in enumerate(("outputs", "inputs"))
    }
    problem = Problem("cuda", torch.bfloat16, (), sizes)
    assert choose("weight_gradient", problem) == "torch"
    assert choose("weight_gradient", problem, "triton") == "triton"
    assert module.weight_gradients_problem(like, 9, shapes).sizes == {"rows": 9, **sizes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_GROUP_IS_FASTER", frozenset({tuple(shapes)}))
        assert choose("weight_gradient", problem) == "triton"
        assert (
            choose("weight_gradient", Problem("cuda", torch.bfloat16, (), {"rows": 9, **sizes})) == "triton"
        )
        assert choose("weight_gradient", Problem("cuda", torch.bfloat16, (), {"outputs": 256})) == "torch"
        del sizes["outputs3"], sizes["inputs3"]
        assert choose("weight_gradient", Problem("cuda", torch.bfloat16, (), sizes)) == "torch"
    assert not ops.groups_weight_gradients(torch.empty(4, 4), shapes)


def test_arguments_of_a_group_are_checked() -> None:
    pair = (torch.randn(5, 6), torch.randn(5, 4))
    with pytest.raises(
        ValueError, match=r"pairs\[1\]\[1\] must have shape \(M, D\) = \(5, 4\), got \(3, 4\)"
    ):
        ops.weight_gradients([pair, (pair[0], pair[1][:3])])
    with pytest.raises(TypeError, match=r"pairs\[1\]\[0\] must be of dtype float32, got bfloat16"):
        ops.weight_gradients([pair, (pair[0].bfloat16(), pair[1].bfloat16())])
    with pytest.raises(ValueError, match=r"pairs\[0\]\[1\] has strides"):
        ops.weight_gradients([(pair[0], torch.randn(4, 5).T)])
    with pytest.raises(RuntimeError, match=r"pairs\[0\]\[0\] requires a gradient"):
        ops.weight_gradients([(pair[0].requires_grad_(), pair[1])])
