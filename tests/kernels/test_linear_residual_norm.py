"""The kernels of linear_residual_norm against the float64 reference, over both ways of loading tiles."""

from __future__ import annotations

import pytest
import torch
from fastamr.kernels import linear_residual_norm as module
from fastamr.kernels.launch import record
from torch import Tensor

from fastamr import ops, reference

from .repeats import assert_repeats
from .rows import CASES, assert_exact_sums, assert_rounded_once, doubled, matrix, path  # noqa: F401


def forward_inputs(dtype: torch.dtype, shape: tuple[int, int, int], device: torch.device) -> list[Tensor]:
    """x, weight, bias, residual, gamma, beta."""
    rows, width, features = shape
    x = matrix(dtype, device, rows, features)
    weight = matrix(dtype, device, width, features, scale=features**-0.5)
    residual = matrix(dtype, device, rows, width) + 1
    return [x, weight, torch.randn(width, device=device), residual, *torch.randn(2, width, device=device)]


def backward_inputs(
    dtype: torch.dtype, shape: tuple[int, int, int], device: torch.device, skip: bool
) -> list[Tensor | None]:
    """upstream, weight, total, mean, rstd, gamma, skip."""
    rows, width, features = shape
    total = matrix(dtype, device, rows, width) + 1
    mean = total.float().mean(1)
    variance = (total.float() - mean[:, None]).square().mean(1)
    return [
        matrix(dtype, device, rows, features),
        matrix(dtype, device, features, width, scale=features**-0.5),
        total,
        mean,
        (variance + 1e-5).rsqrt(),
        torch.randn(width, device=device),
        matrix(dtype, device, rows, width) if skip else None,
    ]


def factors(rows: int, device: torch.device) -> Tensor:
    """A drop path's: rows that are dropped beside rows that are enlarged, in no order that a tile has."""
    return torch.tensor([0, 1.25, 1.25, 0, 2.5, 1, 0], device=device).repeat(rows)[:rows].contiguous()


# One shape shows that the scale can be there.
@pytest.mark.thinned
@pytest.mark.parametrize(
    ("dtype", "shape", "scaled"),
    [*((*case, False) for case in CASES), *((*case, True) for case in CASES if case[1][1] == 48)],
)
@pytest.mark.usefixtures("path")
def test_forward(dtype: torch.dtype, shape: tuple[int, int, int], scaled: bool, device: torch.device) -> None:
    inputs = forward_inputs(dtype, shape, device)
    scale = factors(shape[0], device) if scaled else None
    total, normed, mean, rstd = ops.linear_residual_norm(*inputs, 1e-3, scale=scale)
    expected = reference.linear_residual_norm(*doubled(*inputs), 1e-3, *doubled(scale))[0]
    assert_rounded_once(total, expected, dtype)
    # The statistics and the norm are those of the sum as it was rounded.
    wide = total.double()
    torch.testing.assert_close(mean.double(), wide.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        rstd.double(), (wide.var(1, unbiased=False) + 1e-3).rsqrt(), rtol=1e-5, atol=1e-6
    )
    expected = torch.nn.functional.layer_norm(wide, wide.shape[1:], *doubled(*inputs[4:]), 1e-3)
    assert_rounded_once(normed, expected, dtype)


@pytest.mark.thinned
@pytest.mark.parametrize(
    ("dtype", "shape", "skip", "scaled"),
    # One shape shows that the skip can be absent and the scale there.
    [
        *((*case, True, False) for case in CASES),
        *(
            (*case, *options)
            for case in CASES
            if case[1][1] == 48
            for options in ((False, False), (True, True))
        ),
    ],
)
@pytest.mark.usefixtures("path")
def test_backward(
    dtype: torch.dtype, shape: tuple[int, int, int], skip: bool, scaled: bool, device: torch.device
) -> None:
    inputs = backward_inputs(dtype, shape, device, skip)
    scale = factors(shape[0], device) if scaled else None
    found = ops.linear_residual_norm_backward(*inputs, scale=scale)
    truth = reference.linear_residual_norm_backward(*doubled(*inputs, scale))
    assert len(found) == len(truth) == (5 if scaled else 4)
    for rows in (0, 4) if scaled else (0,):
        assert_rounded_once(found[rows], truth[rows], dtype)
    for sums, exact in zip(found[1:4], truth[1:4], strict=True):
        assert_exact_sums(sums, exact)
    assert_repeats(found, lambda: ops.linear_residual_norm_backward(*inputs, scale=scale))


@pytest.mark.usefixtures("path")
def test_a_far_mean_does_not_cancel(device: torch.device) -> None:
    """The variance is that of centred numbers: rows about 300 with a spread of 1 keep their norm."""
    x, weight, bias, residual, gamma, beta = forward_inputs(torch.float32, (5, 48, 16), device)
    residual = residual + 300
    total, normed, _, _ = ops.linear_residual_norm(x, weight, bias, residual, gamma, beta)
    expected = torch.nn.functional.layer_norm(total.double(), (48,), gamma.double(), beta.double())
    torch.testing.assert_close(normed.double(), expected, rtol=1e-4, atol=1e-4)


def test_without_rows(device: torch.device) -> None:
    found = ops.linear_residual_norm(*forward_inputs(torch.float32, (0, 16, 24), device))
    assert [tuple(value.shape) for value in found] == [(0, 16), (0, 16), (0,), (0,)]
    dx, *sums = ops.linear_residual_norm_backward(
        *backward_inputs(torch.float32, (0, 16, 24), device, skip=True)
    )
    assert dx.shape == (0, 16)
    assert all(torch.equal(value, torch.zeros(16, device=device)) for value in sums)


@pytest.mark.parametrize(
    ("architecture", "rows", "tall", "forward"),
    [
        (80, 19_200, 64, 64),
        (80, 130, 32, 64),
        (90, 19_200, 64, 64),
        (90, 32_000, 128, 128),
        (90, 130, 64, 64),
        (100, 19_200, 64, 64),
        (100, 32_000, 128, 128),
        (120, 130, 32, 64),
    ],
)
def test_encoder_and_decoder_have_tiles_of_their_own(
    architecture: int, rows: int, tall: int, forward: int
) -> None:
    """Without timing too: 19,200 rows would leave half the GPU idle in tiles of 128, 32,000 rows would not."""
    x, total, weight = (
        torch.empty(rows, 64).bfloat16(),
        torch.empty(rows, 256).bfloat16(),
        torch.empty(256, 64),
    )
    vectors = torch.empty(2, 256)
    with record(architecture) as launches:
        module.linear_residual_norm_backward(
            *(x, weight.T.contiguous().bfloat16(), total, *torch.empty(2, rows), vectors[0], None)
        )
        module.linear_residual_norm(x, weight.bfloat16(), vectors[0], total, *vectors, 1e-5)
    for written, height in zip(launches, (tall, forward), strict=True):
        assert written.config.blocks["BLOCK_ROWS"] == height
        assert written.config.num_warps == 8
        assert written.grid == (-(-rows // height),)
