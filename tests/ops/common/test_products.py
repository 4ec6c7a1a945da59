"""The libraries' products: both right at every shape, one for the whole process, named by the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from fastamr import ops
from fastamr.ops.common import products
from fastamr.testing import relative_error

SHAPES = [(1, 1, 1), (1, 256, 768), (3, 7, 5), (600, 256, 1024), (601, 75, 33), (0, 8, 4), (5, 8, 0)]
onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of PyTorch has no oneDNN"
)


@pytest.fixture(params=[pytest.param("onednn", marks=onednn), "mkl"])
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(products, "_library", request.param)
    return request.param


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width", "features"), SHAPES)
def test_products_are_those_of_float64(
    chosen: str, rows: int, width: int, features: int, dtype: torch.dtype
) -> None:
    x, weight, bias, upstream = (
        torch.randn(shape, dtype=torch.float64).to(dtype)
        for shape in ((rows, width), (features, width), (features,), (rows, features))
    )
    given = [each.clone() for each in (x, weight, bias, upstream)]
    found = (
        products.product(x, weight),
        products.product(x, weight, bias),
        products.product_backward(upstream, weight),
    )
    exact = x.double() @ weight.double().T
    bound = torch.finfo(dtype).eps * 8
    for one, truth in zip(
        found, (exact, exact + bias.double(), upstream.double() @ weight.double()), strict=True
    ):
        assert one.dtype == dtype
        assert one.shape == truth.shape
        assert one.is_contiguous()
        if one.numel():
            assert relative_error(one, truth) < bound
    assert all(map(torch.equal, given, (x, weight, bias, upstream)))


@onednn
def test_ops_reach_the_chosen_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain float32 forms multiply with it; gradients of float64 and of weights do not."""
    shapes: list[tuple[int, ...]] = []
    take = products._takes_onednn

    def noted(x: torch.Tensor, weight: torch.Tensor) -> bool:
        shapes.extend([tuple(x.shape)] * take(x, weight))
        return take(x, weight)

    monkeypatch.setattr(products, "_library", "onednn")
    monkeypatch.setattr(products, "_takes_onednn", noted)
    x, weight, bias = torch.randn(9, 4), torch.randn(6, 4), torch.randn(6)
    ops.row_linear(x, weight, bias, backend="torch")
    ops.row_linear_backward(torch.randn(9, 6), weight, backend="torch")
    assert shapes == [(9, 4), (9, 6)]
    ops.row_linear(x.double(), weight.double(), bias.double(), backend="torch")
    ops.weight_gradient(torch.randn(9, 6), x, backend="torch")
    assert len(shapes) == 2


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("mkl", "mkl"),
        pytest.param("onednn", "onednn", marks=onednn),
        ("mlk", "unknown FASTAMR_PRODUCTS 'mlk'"),
        ("", ("mkl", "onednn")),
    ],
)
def test_the_environment_names_the_library(named: str, said: str | tuple[str, ...]) -> None:
    code = "from fastamr.ops.common import products; print(products._library)"
    environment = {**os.environ, "FASTAMR_PRODUCTS": named}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    last = (run.stdout + run.stderr).strip().splitlines()[-1]
    assert last in said if isinstance(said, tuple) else said in last
