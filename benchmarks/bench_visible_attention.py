"""Attention at skeleton sizes, forward and forward + backward, by every back end of the op that can run here."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops
from fastamr.testing import relative_error

from .conftest import Clock

FORMS = {"self 75": (75, 75), "cross 125x75": (125, 75)}
_baseline: dict[tuple[str, str, bool], float] = {}


@pytest.mark.parametrize("backend", ["sdpa", "cpp", "cuda", "materialised", "reference"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("form", list(FORMS))
def test_visible_attention(
    form: str, backward: bool, backend: str, device: torch.device, clock: Clock
) -> None:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    reason = ops.availability(device.type, dtype)["visible_attention"][backend]
    if reason is not None:
        pytest.skip(reason)
    count = 256 if device.type == "cuda" else 16
    queries, keys = FORMS[form]
    packed = torch.randn(count, keys, 3 if form == "self 75" else 2, 8, 32, device=device, dtype=dtype)
    q = torch.randn(count, queries, 8, 32, device=device, dtype=dtype)
    inputs = [x.requires_grad_(backward) for x in ((packed,) if form == "self 75" else (q, packed))]
    upstream = torch.randn(count, queries, 256, device=device, dtype=dtype)

    def run() -> tuple[torch.Tensor, ...]:
        out = ops.visible_attention(*inputs, backend=backend)
        return torch.autograd.grad(out, inputs, upstream) if backward else (out,)

    exact = ops.visible_attention(*[x.detach().double() for x in inputs], backend="reference")
    allowed = 1e-5 if dtype == torch.float32 else 1e-2
    assert relative_error(ops.visible_attention(*inputs, backend=backend), exact) < allowed
    median = clock(
        run,
        op="visible_attention",
        shape=[count, queries, keys, 8, 32],
        dtype=str(dtype).removeprefix("torch."),
        backend=backend,
        backward=backward,
    )
    base = _baseline.setdefault((form, device.type, backward), median)
    clock.benchmark.extra_info["speedup_against_sdpa"] = round(base / median, 3)
