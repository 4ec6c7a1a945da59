"""The compiled CPU extension on older processors: each instruction set, in its own process, gives torch's results."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.extension
CODE = """
import torch
import torch.nn.functional as F
from fastamr import native, ops

assert native.why_not("cpu") is None
assert not native.has_matrix_unit()
torch.manual_seed(0)

for dtype in (torch.float32, torch.bfloat16, torch.float64):
    loose = {"rtol": 0.03, "atol": 0.03} if dtype == torch.bfloat16 else {}
    for size in (16, 32, 64):
        x = torch.randn(2, 37, 3, 2, size).to(dtype).requires_grad_()
        found, expected = (ops.visible_attention(x, backend=name) for name in ("cpp", "sdpa"))
        torch.testing.assert_close(found, expected, **loose)
        found, expected = (torch.autograd.grad(y.float().square().sum(), x)[0] for y in (found, expected))
        torch.testing.assert_close(found, expected, **loose)

for dtype, allowed in ((torch.float32, 2e-6), (torch.bfloat16, 2e-2)):
    x, weight, bias = torch.randn(9, 21).to(dtype), torch.randn(35, 21).to(dtype), torch.randn(35)
    h, slope = ops.linear_gelu(x, weight, bias, backend="cpp")
    truth = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    assert (h.double() - truth).norm() < allowed * truth.norm()
    normed = ops.row_norm(h, bias, bias, backend="cpp")[0]
    truth = F.layer_norm(h.double(), (35,), bias.double(), bias.double())
    assert (normed.double() - truth).norm() < allowed * truth.norm()
print("fine")
"""


@pytest.mark.parametrize("instructions", ["baseline", "avx2", "avx512"])
def test_older_processors(instructions: str) -> None:
    """The same results, up to rounding, from the kernels for older processors."""
    run = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "FASTAMR_CPU": instructions, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "fine", run.stderr
