"""Attention at skeleton sizes, forward and forward + backward, by every back end of the op that can run here.

On a GPU SDPA runs once as PyTorch chooses and once by each of its own kernels, and beside it PyTorch's ``varlen_attn``
and FlexAttention, which are no back ends of the op. All are compared with the same float64.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastamr import ops
from fastamr.testing import relative_error

from ..conftest import Clock
from ..forms import needs_instructions, number_of_bytes
from .attention_rivals import RIVALS, flex, varlen, why_not

FORMS = {"self 75": (75, 75), "cross 125x75": (125, 75)}
KERNELS = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
}
_baseline: dict[tuple[str, str, bool], float] = {}


@pytest.mark.parametrize("rival", ["sdpa", *KERNELS, *RIVALS, "cpp", "cuda", "materialised", "reference"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("form", list(FORMS))
def test_visible_attention(form: str, backward: bool, rival: str, device: torch.device, clock: Clock) -> None:
    if rival in KERNELS and device.type == "cpu":
        pytest.skip("SDPA's kernels are told apart on a GPU")
    backend = rival.partition(" ")[0]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    needs_instructions(device, dtype)
    if rival in RIVALS:
        reason = why_not(rival, device, dtype)
    else:
        reason = ops.availability(device.type, dtype)["visible_attention"][backend]
    if reason is not None:
        pytest.skip(reason)
    count = 256 if device.type == "cuda" else 16
    queries, keys = FORMS[form]
    packed = torch.randn(count, keys, 3 if form == "self 75" else 2, 8, 32, device=device, dtype=dtype)
    q = torch.randn(count, queries, 8, 32, device=device, dtype=dtype)
    inputs = [x.requires_grad_(backward) for x in ((packed,) if form == "self 75" else (q, packed))]
    upstream = torch.randn(count, queries, 256, device=device, dtype=dtype)

    def chosen() -> AbstractContextManager[None]:
        return sdpa_kernel(KERNELS[rival]) if rival in KERNELS else nullcontext()

    def attend() -> torch.Tensor:
        if rival in RIVALS:
            return {"varlen": varlen, "flex": flex}[rival](inputs)
        with chosen():
            return ops.visible_attention(*inputs, backend=backend)

    def run() -> tuple[torch.Tensor, ...]:
        out = attend()
        return torch.autograd.grad(out, inputs, upstream) if backward else (out,)

    wide = [x.detach().double().requires_grad_(backward) for x in inputs]
    exact = ops.visible_attention(*wide, backend="reference")
    truth = torch.autograd.grad(exact, wide, upstream.double()) if backward else (exact,)
    allowed = 1e-5 if dtype == torch.float32 else 1e-2
    assert relative_error(attend(), exact) < allowed
    for found, wanted in zip(run(), truth, strict=True):
        assert relative_error(found, wanted) < 2 * allowed
    # Forward: the projections are read and the output written; the backward reads both and the upstream gradient,
    # and writes the projections' gradients.
    once = number_of_bytes(*inputs, upstream)
    moved, shape = 3 * once if backward else once, [count, queries, keys, 8, 32]
    median = clock(run, "visible_attention", shape, dtype, rival, bytes_moved=moved, backward=backward)
    base = _baseline.setdefault((form, device.type, backward), median)
    clock.benchmark.extra_info["speedup_against_sdpa"] = round(base / median, 3)
