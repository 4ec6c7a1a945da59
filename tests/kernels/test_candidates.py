"""Every block that timing may choose computes the same: against float64 in the interpreter, for rows that fill none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from fastamr.kernels import launch as launcher
from fastamr.kernels import linear_gelu, linear_residual_norm, row_norm, weight_gradient
from fastamr.kernels.launch import Config, assume, record
from torch import Tensor

from fastamr import ops, reference
from fastamr.reference.rows.linear_gelu import form_for

from .rows import assert_exact_sums, assert_rounded_once, doubled, matrix
from .test_linear_residual_norm import backward_inputs, factors, forward_inputs
from .test_row_norm import norm_inputs

MODULES = (linear_gelu, linear_residual_norm, row_norm, weight_gradient)
CPU = torch.device("cpu")


@pytest.fixture(params=[80, 90, 100])
def architecture(request: pytest.FixtureRequest) -> int:
    return request.param


def each_candidate(monkeypatch: pytest.MonkeyPatch, check: Callable[[], None], most: int) -> None:
    """Check with every candidate of the kernels that it launches; ``most`` is how many the richest of them has."""
    counts: list[int] = []
    for place in range(most):

        def pick(name: str, kind: object, candidates: Sequence[Config], *rest: object) -> Config:
            counts.append(len(candidates))
            return candidates[min(place, len(candidates) - 1)]  # noqa: B023

        for module in MODULES:
            monkeypatch.setattr(module, "pick", pick)
        check()
    assert max(counts) == most


# Two tiles of 128 rows with one row in the second; a row of three pieces, the last one not full; rows that no
# descriptor can address.
SHAPES = [("bfloat16", (129, 256, 96)), ("float16", (37, 304, 40)), ("float16", (65, 33, 50))]


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_products_with_norm(
    architecture: int, kind: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = getattr(torch, kind)
    inputs, backward = forward_inputs(dtype, shape, CPU), backward_inputs(dtype, shape, CPU, True)
    scale = factors(shape[0], CPU)
    truth = reference.linear_residual_norm(*doubled(*inputs), 1e-3, *doubled(scale))
    exact = reference.linear_residual_norm_backward(*doubled(*backward, scale))

    def check() -> None:
        total, normed, *_ = ops.linear_residual_norm(*inputs, 1e-3, scale=scale)
        assert_rounded_once(total, truth[0], dtype)
        wide = torch.nn.functional.layer_norm(total.double(), shape[1:2], *doubled(*inputs[4:]), 1e-3)
        assert_rounded_once(normed, wide, dtype)
        found = ops.linear_residual_norm_backward(*backward, scale=scale)
        for place in (0, 4):
            assert_rounded_once(found[place], exact[place], dtype)
        for sums, true in zip(found[1:4], exact[1:4], strict=True):
            assert_exact_sums(sums, true)

    most = {True: {80: 3, 90: 4, 100: 3}[architecture], False: 3}
    with assume(architecture):
        each_candidate(monkeypatch, check, most[shape[2] % 8 == 0])


@pytest.mark.parametrize(
    ("kind", "shape"), [("bfloat16", (130, 256)), ("float32", (65, 33)), ("float16", (5, 2500))]
)
def test_norms(architecture: int, kind: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    dtype = getattr(torch, kind)
    x, gamma, beta, upstream, skip = norm_inputs(dtype, shape, CPU)
    truth, mean, rstd = reference.row_norm(*doubled(x, gamma, beta), 1e-3)
    statistics = mean.float(), rstd.float()
    exact = reference.row_norm_backward(*doubled(upstream, x, *statistics, gamma, skip))

    def check() -> None:
        assert_rounded_once(ops.row_norm(x, gamma, beta, 1e-3)[0], truth, dtype)
        found = ops.row_norm_backward(upstream, x, *statistics, gamma, skip)
        assert_rounded_once(found[0], exact[0], dtype)
        for sums, true in zip(found[1:], exact[1:], strict=True):
            assert_exact_sums(sums, true)

    with assume(architecture):
        each_candidate(monkeypatch, check, 3)


@pytest.mark.parametrize(("kind", "shape"), SHAPES[:2])
def test_products_with_gelu_and_gradients_of_weights(
    architecture: int, kind: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype, (rows, width, features) = getattr(torch, kind), shape
    x, upstream, slope = (matrix(dtype, CPU, rows, each) for each in (width, width, features))
    weight, bias = matrix(dtype, CPU, features, width, scale=width**-0.5), torch.randn(features)
    down = weight.T.contiguous()
    h, derivative = reference.linear_gelu(*doubled(x, weight, bias), form=form_for(dtype))
    du, columns = reference.linear_gelu_backward(*doubled(upstream, down, slope))

    def check() -> None:
        for value, true in zip(ops.linear_gelu(x, weight, bias), (h, derivative), strict=True):
            assert_rounded_once(value, true, dtype)
        found = ops.linear_gelu_backward(upstream, down, slope)
        assert_rounded_once(found[0], du, dtype)
        assert_exact_sums(found[1], columns)
        pairs = [(slope, x), (x, slope), (x, x)]
        singles = [ops.weight_gradient(*pair) for pair in pairs]
        for one, grouped, (left, right) in zip(singles, ops.weight_gradients(pairs), pairs, strict=True):
            assert_exact_sums(one, left.double().T @ right.double())
            assert_exact_sums(grouped, left.double().T @ right.double())

    with assume(architecture):
        each_candidate(monkeypatch, check, 2)


def test_trying_candidates_out_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timing runs a launcher again and again: what it overwrites must still be there for the run that counts."""
    product, residual, total, upstream = (matrix(torch.float32, CPU, 37, 48) for _ in range(4))
    vectors, rows = torch.randn(3, 48), torch.randn(2, 37)

    def results() -> list[Tensor]:
        backward = (total, *rows, vectors[0], residual, factors(37, CPU))
        return [
            *row_norm.residual_norm_rows(product.clone(), vectors[0], residual, *vectors[1:], 1e-5),
            *row_norm.residual_norm_backward_rows(product.clone(), *backward),
            *ops.row_norm_backward(upstream, total, *rows, vectors[0]),
            *ops.linear_residual_norm_backward(product, matrix_of, total, *rows, vectors[0]),
        ]

    def pick(
        name: str, kind: object, candidates: Sequence[Config], run: Callable[[Config], object], device: object
    ) -> Config:
        for config in (*candidates, *candidates):
            run(config)
        return candidates[0]

    matrix_of = matrix(torch.float32, CPU, 48, 48)
    expected = results()
    for module in MODULES:
        monkeypatch.setattr(module, "pick", pick)
    assert all(torch.equal(*pair) for pair in zip(results(), expected, strict=True))


def test_all_candidates_are_written_down_to_be_compiled() -> None:
    """What ``tools/check_kernels.py`` compiles: each candidate once, and the one that runs last."""
    x, vectors = torch.empty(32_000, 256).bfloat16(), torch.empty(2, 256)
    for architecture in (80, 90, 100):
        with record(architecture) as chosen:
            row_norm.row_norm_backward(x, x, *torch.empty(2, 32_000), vectors[0], None)
        with record(architecture, every=True) as launches:
            row_norm.row_norm_backward(x, x, *torch.empty(2, 32_000), vectors[0], None)
        configs = [each.config for each in launches]
        assert len(configs) == 3
        assert all(configs.count(config) == 1 for config in configs)
        assert configs[-1] == chosen[0].config
        assert launcher._records_every is False


def test_few_and_many_rows_have_shares_of_their_own() -> None:
    shares = {}
    for rows in (19_200, 32_000):
        x, vectors = torch.empty(rows, 256).bfloat16(), torch.empty(2, 256)
        with record(90) as launches:
            row_norm.row_norm_backward(x, x, *torch.empty(2, rows), vectors[0], None)
        shares[rows] = launches[0].config.blocks["SHARE"]
        assert launches[0].grid == (-(-rows // shares[rows]),)
    assert shares == {19_200: 32, 32_000: 64}
