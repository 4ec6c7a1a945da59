"""Attention at skeleton sizes, forward + backward, by every back end of the op."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops
from fastamr.testing import relative_error

from .conftest import Clock

_baseline: dict[tuple[str, str], float] = {}


@pytest.mark.parametrize("backend", ["sdpa", "materialised", "reference"])
@pytest.mark.parametrize("form", ["self 75", "cross 125x75"])
def test_visible_attention(form: str, backend: str, device: torch.device, clock: Clock) -> None:
    count = 256 if device.type == "cuda" else 16
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    packed = torch.randn(count, 75, 3 if form == "self 75" else 2, 8, 32, device=device, dtype=dtype)
    packed.requires_grad_()
    q = torch.randn(count, 125, 8, 32, device=device, dtype=dtype).requires_grad_()
    inputs = (packed,) if form == "self 75" else (q, packed)

    def run() -> tuple[torch.Tensor, ...]:
        out = ops.visible_attention(*inputs, backend=backend)
        return torch.autograd.grad(out, inputs, torch.ones_like(out))

    exact = ops.visible_attention(*[x.detach().double() for x in inputs], backend="reference")
    allowed = 1e-5 if dtype == torch.float32 else 1e-2
    assert relative_error(ops.visible_attention(*inputs, backend=backend), exact) < allowed
    median = clock(
        run,
        op="visible_attention",
        shape=[count, 75 if form == "self 75" else 125, 75, 8, 32],
        dtype=str(dtype).removeprefix("torch."),
        backend=backend,
        backward=True,
    )
    base = _baseline.setdefault((form, device.type), median)
    clock.benchmark.extra_info["speedup_against_sdpa"] = round(base / median, 3)
