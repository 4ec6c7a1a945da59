"""The kernels of linear_gelu against the float64 reference, over both ways of loading tiles."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels import linear_gelu as module
from fastamr.kernels.launch import record
from triton.tools.tensor_descriptor import TensorDescriptor

from fastamr import ops, reference
from fastamr.reference.rows.linear_gelu import form_for

from .repeats import assert_repeats
from .rows import CASES, assert_exact_sums, assert_rounded_once, doubled, matrix, path  # noqa: F401


@pytest.mark.thinned
@pytest.mark.parametrize(("dtype", "shape"), CASES)
@pytest.mark.usefixtures("path")
def test_forward(dtype: torch.dtype, shape: tuple[int, int, int], device: torch.device) -> None:
    rows, width, features = shape
    x, weight = matrix(dtype, device, rows, width), matrix(dtype, device, features, width, scale=width**-0.5)
    bias = torch.randn(features, device=device)
    h, slope = ops.linear_gelu(x, weight, bias)
    truth = reference.linear_gelu(*doubled(x, weight, bias), form=form_for(dtype))
    assert_rounded_once(h, truth[0], dtype)
    assert_rounded_once(slope, truth[1], dtype)
    again, nothing = ops.linear_gelu(x, weight, bias, slope=False)
    assert nothing is None
    assert torch.equal(h, again)


@pytest.mark.thinned
@pytest.mark.parametrize(("dtype", "shape"), CASES)
@pytest.mark.usefixtures("path")
def test_backward(dtype: torch.dtype, shape: tuple[int, int, int], device: torch.device) -> None:
    rows, width, features = shape
    upstream, slope = matrix(dtype, device, rows, width), matrix(dtype, device, rows, features)
    weight = matrix(dtype, device, width, features, scale=width**-0.5)
    du, columns = ops.linear_gelu_backward(upstream, weight, slope)
    truth = reference.linear_gelu_backward(*doubled(upstream, weight, slope))
    assert_rounded_once(du, truth[0], dtype)
    assert_exact_sums(columns, truth[1])
    assert_repeats((du, columns), lambda: ops.linear_gelu_backward(upstream, weight, slope))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")
@pytest.mark.usefixtures("path")
def test_far_out_the_polynomial_does_not_turn(device: torch.device) -> None:
    """GELU is 0 below -8 and the identity above, also where a fifth-order polynomial has changed its sign."""
    u = torch.tensor([-3e4, -100.0, -20.0, -11.0, -8.0, 8.0, 11.0, 20.0, 100.0, 3e4], device=device).half()
    weight = torch.zeros(16, 16, device=device).half()
    weight[0, 0] = 1
    x = torch.zeros(len(u), 16, device=device).half()
    x[:, 0] = u
    h, slope = ops.linear_gelu(x, weight, torch.zeros(16, device=device))
    torch.testing.assert_close(h[:, 0], u.clamp(min=0), rtol=0, atol=1e-6)
    torch.testing.assert_close(slope[:, 0], (u > 0).half(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("vector", [torch.float32, torch.float16])
def test_bias_of_either_dtype(vector: torch.dtype, device: torch.device) -> None:
    x, weight = matrix(torch.float16, device, 5, 16), matrix(torch.float16, device, 24, 16)
    bias = torch.randn(24, device=device).to(vector)
    truth = reference.linear_gelu(*doubled(x, weight, bias), form="tanh")
    assert_rounded_once(ops.linear_gelu(x, weight, bias)[0], truth[0], torch.float16)


def test_without_rows(device: torch.device) -> None:
    empty, weight = torch.zeros(0, 16, device=device), torch.zeros(24, 16, device=device)
    h, slope = ops.linear_gelu(empty, weight, torch.zeros(24, device=device))
    assert h.shape == slope.shape == (0, 24)
    du, columns = ops.linear_gelu_backward(empty, weight.T.contiguous(), slope)
    assert du.shape == (0, 24)
    assert torch.equal(columns, torch.zeros(24, device=device))


@pytest.mark.parametrize(
    ("architecture", "features", "tma"),
    [(80, 1024, False), (90, 1024, True), (100, 1024, True), (120, 1024, False), (90, 100, False)],
)
def test_descriptors_where_they_pay_and_fit(architecture: int, features: int, tma: bool) -> None:
    x, weight = torch.empty(32, 256).bfloat16(), torch.empty(features, 256).bfloat16()
    with record(architecture) as launches:
        module.linear_gelu(x, weight, torch.empty(features), slope=True)
    (written,) = launches
    found = {
        name: isinstance(written.arguments[name], TensorDescriptor) for name in ("x", "weight", "h", "slope")
    }
    assert set(found.values()) == {tma}
    assert written.arguments["TMA"] is tma
    assert not written.arguments["UPCAST"], "only the interpreter needs it"
