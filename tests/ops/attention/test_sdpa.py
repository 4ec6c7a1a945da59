"""PyTorch's attention without autograd against autograd through ``F.scaled_dot_product_attention``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastamr import ops
from fastamr.ops.attention import sdpa
from fastamr.testing import relative_error

SIZE = 32
SCALE = SIZE**-0.5
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def packed(queries: int | None, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor | None]:
    """qkv, or q and kv where there are queries; kv is a slice of a larger buffer, as a stack's is."""
    if queries is None:
        return torch.randn(3, 11, 3, 2, SIZE, device=device).to(dtype), None
    whole = torch.randn(3, 11, 4, 2, 2, SIZE, device=device).to(dtype)
    return torch.randn(1, queries, 2, SIZE, device=device).to(dtype).expand(3, -1, -1, -1), whole[:, :, 1]


def truth(q: Tensor, kv: Tensor | None, grad: Tensor) -> list[Tensor]:
    """Output, gradient of each packed input, and the columns, by autograd in float64."""
    leaves = [each.double().clone().requires_grad_() for each in (q, kv) if each is not None]
    parts = leaves[0].unbind(2) if kv is None else (leaves[0], *leaves[1].unbind(2))
    with sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts), scale=SCALE)
    out = out.transpose(1, 2).flatten(2)
    found = torch.autograd.grad(out, leaves, grad.double())
    columns = torch.cat([each.flatten(0, 1).sum(0).view(-1, 2, SIZE) for each in found])
    return [out, *found, columns]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("queries", [None, 7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_autograd(queries: int | None, dtype: torch.dtype, device: str) -> None:
    q, kv = packed(queries, dtype, device)
    compute = torch.promote_types(torch.float32, dtype)
    found = ops.sdpa_forward(q, kv, SCALE)
    if device == "cuda" and dtype == torch.float64:
        assert found is None, "PyTorch has no fused kernel for it"
        return
    assert found is not None
    out, state = found
    grad = torch.randn_like(out)
    expected = truth(q, kv, grad)
    dq = torch.full(q.shape, torch.nan, dtype=dtype, device=device)
    buffer = None if kv is None else torch.full((3, 11, 4, 2, 2, SIZE), torch.nan, dtype=dtype, device=device)
    dkv = None if buffer is None else buffer[:, :, 2]
    sums = ops.sdpa_backward_into(grad, out, state, q, kv, dq=dq, dkv=dkv)
    assert [each.numel() for each in sums] == ([3 * 2 * SIZE] if kv is None else [2 * SIZE, 4 * SIZE])
    columns = torch.cat(sums).view(3, 2, SIZE)
    assert columns.dtype == compute
    allowed = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2}[dtype]
    results = [out, dq, *([] if dkv is None else [dkv]), columns]
    for value, exact in zip(results, expected, strict=True):
        assert relative_error(value, exact) < allowed
    if buffer is not None:
        assert buffer[:, :, [0, 1, 3]].isnan().all(), "nothing but the slice is written"


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"])
def test_each_kernel_of_a_gpu(kernel: str) -> None:
    q, kv = packed(7, torch.bfloat16, "cuda")
    with sdpa_kernel(getattr(SDPBackend, kernel)):
        found = ops.sdpa_forward(q, kv, SCALE)
    assert found is not None
    out, state = found
    assert state.kernel == kernel.split("_")[0].lower()
    grad, dq, dkv = torch.randn_like(out), q.new_empty(q.shape), torch.empty_like(kv)
    later = ops.ColumnSums(1)
    sums = ops.sdpa_backward_into(grad, out, state, q, kv, dq=dq, dkv=dkv, columns=later)
    later.finish()
    columns = torch.cat(sums).view(3, 2, SIZE)
    for value, exact in zip((out, dq, dkv, columns), truth(q, kv, grad), strict=True):
        assert relative_error(value, exact) < 2e-2


@pytest.mark.parametrize("kernel", ["cpu", "flash", "efficient", "cudnn"])
def test_every_kernel_is_called_by_its_schema(kernel: str) -> None:
    """Shapes alone: what the forward gives fits what the backward takes."""
    like = torch.empty(3, 2, 11, SIZE, device="meta", dtype=torch.bfloat16)
    out, rest = sdpa._forward(kernel, like, like, like, SCALE)
    assert out.shape == like.shape
    gradients = sdpa._backward(out, out, sdpa.SdpaState(kernel, SCALE, rest), like, like, like)
    assert [each.shape for each in gradients] == [like.shape] * 3


def test_where_pytorch_takes_no_fused_kernel_autograd_records() -> None:
    q, _ = packed(None, torch.float32, "cpu")
    with sdpa_kernel(SDPBackend.MATH):
        assert ops.sdpa_forward(q, None, SCALE) is None
