"""The CUDA back end of visible attention on a GPU: numbers, graphs, streams, large tensors.

Runs from a bare checkout: ``PYTHONPATH=. python -m pytest tests/ops/attention/test_visible_attention_gpu.py``. Under
compute-sanitizer add ``-m "gpu and not slow"``; its memcheck and racecheck must stay silent.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastamr import ops
from fastamr.testing import assert_as_good_as

pytestmark = pytest.mark.gpu

DTYPES = [torch.bfloat16, torch.float16]
SHAPES = [(4, 75, 75, 8, 32), (2, 125, 75, 8, 32), (1, 1, 1, 1, 32), (2, 17, 33, 3, 64), (2, 80, 81, 2, 16)]
SHAPES += [(2, 256, 256, 2, 32), (1, 256, 256, 2, 64), (1, 140, 200, 2, 16), (1, 300, 75, 2, 32)]
SEED = torch.tensor([5, 2**33 + 7])


def inputs(shape: tuple[int, ...], dtype: torch.dtype, is_self: bool) -> list[Tensor]:
    sequences, queries, keys, heads, size = shape
    shapes = [(sequences, queries, heads, size), (sequences, keys, 2, heads, size)]
    if is_self:
        shapes = [(sequences, keys, 3, heads, size)]
    return [torch.randn(each, device="cuda", dtype=dtype).requires_grad_() for each in shapes]


def with_gradients(tensors: list[Tensor], upstream: Tensor, **options: Any) -> list[Tensor]:
    out = ops.visible_attention(*tensors, **options)
    bias = options.get("bias")
    wanted = [*tensors, *([] if bias is None else [bias.joints, bias.times])]
    return [out.detach(), *torch.autograd.grad(out, wanted, upstream.to(out.dtype))]


def in_double(options: dict[str, Any]) -> dict[str, Any]:
    bias = options.get("bias")
    if bias is None:
        return options
    tables = (x.detach().double().requires_grad_() for x in bias[:2])
    return {**options, "bias": ops.AttentionBias(*tables, *bias[2:])}


def check(tensors: list[Tensor], options: dict[str, Any], peer: str) -> None:
    """Outputs and gradients as good as those of ``peer`` at the same dtype, measured against float64."""
    exact = [x.detach().double().requires_grad_() for x in tensors]
    shape = ops.visible_attention(*tensors, backend="cuda", **options).shape
    upstream = torch.randn(shape, device="cuda").to(tensors[0].dtype)
    truth = with_gradients(exact, upstream.double(), backend="reference", **in_double(options))
    found = with_gradients(tensors, upstream, backend="cuda", **options)
    theirs = with_gradients(tensors, upstream, backend=peer, **options)
    again = with_gradients(tensors, upstream, backend="cuda", **options)
    for value, other, right, repeated in zip(found, theirs, truth, again, strict=True):
        assert_as_good_as(value, right, other)
        assert torch.equal(value, repeated), "two runs differ"


@pytest.mark.parametrize("is_self", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_as_exact_as_sdpa(dtype: torch.dtype, shape: tuple[int, ...], is_self: bool) -> None:
    check(inputs(shape, dtype, is_self), {}, "sdpa")


def listed(sequences: int, rows: int, keys: int, kind: str) -> Tensor:
    scores = torch.rand(sequences, rows, device="cuda")
    keep = scores.argsort(dim=1)[:, :keys]
    if kind == "ascending":
        keep = keep.sort(dim=1).values
    if kind == "repeated":
        keep[:, 2::3] = keep[:, :1]
    return keep.int()


@pytest.mark.parametrize("is_self", [False, True])
@pytest.mark.parametrize("kind", ["ascending", "shuffled", "repeated"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_keep(dtype: torch.dtype, kind: str, is_self: bool) -> None:
    # Repeated ids sum in the storage type, as the reference does; SDPA's gather sums likewise.
    check(inputs((3, 40, 100, 2, 32), dtype, is_self), {"keep": listed(3, 100, 60, kind)}, "sdpa")


@pytest.mark.parametrize("is_self", [False, True])
@pytest.mark.parametrize("keys", [75, 200])
def test_counts_bias_and_dropout(keys: int, is_self: bool) -> None:
    joints, times, heads = 25, 30, 2
    bias = ops.AttentionBias(
        torch.randn(heads, joints, joints, device="cuda", requires_grad=True),
        torch.randn(heads, 2 * times - 1, device="cuda", requires_grad=True),
    )
    options = {
        "counts": torch.tensor([keys, keys // 2, 1, 0], device="cuda"),
        "keep": listed(4, 300, keys, "shuffled"),
        "bias": bias,
        "dropout": 0.3,
        "seed": SEED.cuda(),
    }
    check(inputs((4, 50, 300, heads, 32), torch.bfloat16, is_self), options, "reference")


def test_cu_seqlens() -> None:
    lengths = [75, 0, 31, 200, 1]
    cu_seqlens = torch.tensor([0, *lengths], device="cuda").cumsum(0).int()
    qkv = torch.randn(sum(lengths), 3, 2, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    check([qkv], {"cu_seqlens": cu_seqlens}, "reference")
    check([qkv], {"cu_seqlens": cu_seqlens, "dropout": 0.2, "seed": SEED.cuda()}, "reference")


def test_an_overlong_sequence_gives_nan() -> None:
    """Its length is known on the device alone; the other sequences are right."""
    cu_seqlens = torch.tensor([0, 20, 320], device="cuda", dtype=torch.int32)
    qkv = torch.randn(320, 3, 2, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    out = ops.visible_attention(qkv, cu_seqlens=cu_seqlens, backend="cuda")
    alone = ops.visible_attention(qkv[None, :20], backend="cuda")[0]
    assert torch.equal(out[:20], alone)
    assert out[20:].isnan().all()
    assert torch.autograd.grad(out.float().sum(), qkv)[0][20:].isnan().all()


def test_layouts() -> None:
    """Rows that do not start on 16 bytes are copied; expanded gradients and extreme logits are read as they are."""
    flat = torch.randn(2 * 20 * 3 * 2 * 32 + 1, device="cuda", dtype=torch.bfloat16)
    shifted = flat[1:].view(2, 20, 3, 2, 32)
    expected = ops.visible_attention(shifted.clone(), backend="cuda")
    assert torch.equal(ops.visible_attention(shifted, backend="cuda"), expected)
    qkv = shifted.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ops.visible_attention(qkv, backend="cuda").sum(), qkv)
    ones = torch.ones_like(expected)
    (dense,) = torch.autograd.grad(ops.visible_attention(qkv, backend="cuda"), qkv, ones)
    assert torch.equal(gradient, dense)
    extreme = qkv.detach().clone()
    extreme[:, :, 0] *= 1e4
    assert torch.isfinite(ops.visible_attention(extreme, backend="cuda")).all()
    assert ops.visible_attention(qkv[:0], backend="cuda").shape == (0, 20, 64)


def captured_call() -> tuple[list[Tensor], Tensor, dict[str, Any]]:
    tensors = inputs((16, 125, 75, 8, 32), torch.bfloat16, is_self=False)
    upstream = torch.randn(16, 125, 256, device="cuda", dtype=torch.bfloat16)
    return tensors, upstream, {"backend": "cuda", "dropout": 0.1, "seed": SEED.cuda()}


def test_captured_in_a_graph() -> None:
    """The seed is read on the device: advancing it in place changes the replay."""
    tensors, upstream, options = captured_call()
    expected = with_gradients(tensors, upstream, **options)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        with_gradients(tensors, upstream, **options)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = with_gradients(tensors, upstream, **options)
    for _ in range(2):
        for value in captured:
            value.fill_(0)
        graph.replay()
        assert all(torch.equal(*pair) for pair in zip(captured, expected, strict=True))
    options["seed"][1] += 1
    graph.replay()
    advanced = with_gradients(tensors, upstream, **options)
    assert all(torch.equal(*pair) for pair in zip(captured, advanced, strict=True))
    assert not torch.equal(captured[0], expected[0])


def test_on_a_second_stream() -> None:
    """The kernels queue behind the work of the current stream, not of the default one."""
    tensors, upstream, options = captured_call()
    expected = with_gradients(tensors, upstream, **options)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        found = with_gradients(tensors, upstream, **options)
        waiting = not stream.query()
    assert waiting, "the op returned before the work queued ahead of it was done"
    stream.synchronize()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_backward_into_a_slice_and_column_sums() -> None:
    """Keys and values of one of five layers; the other layers' gradients stay."""
    q = torch.randn(4, 125, 8, 32, device="cuda", dtype=torch.bfloat16)
    layers = torch.randn(4, 75, 5, 2, 8, 32, device="cuda", dtype=torch.bfloat16)
    kv = layers[:, :, 3]
    leaves = [q.clone().requires_grad_(), kv.clone().requires_grad_()]
    upstream = torch.randn(4, 125, 256, device="cuda", dtype=torch.bfloat16)
    out, dq, dkv = with_gradients(leaves, upstream, backend="cuda")
    scores = torch.einsum("sqhe,skhe->shqk", q.float(), kv[:, :, 0].float()) * 32**-0.5
    gradients = torch.full_like(layers, 7.0)
    into, columns = torch.empty_like(q), torch.empty(3, 8, 32, device="cuda")
    ops.visible_attention_backward_into(
        upstream,
        out,
        scores.logsumexp(-1),
        q,
        kv,
        dq=into,
        dkv=gradients[:, :, 3],
        columns=columns,
        backend="cuda",
    )
    torch.testing.assert_close(into, dq, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(gradients[:, :, 3], dkv, rtol=2e-2, atol=2e-2)
    assert (gradients[:, :, [0, 1, 2, 4]] == 7).all()
    sums = torch.stack([dq.float().sum((0, 1)), *dkv.float().sum((0, 1))])
    torch.testing.assert_close(columns, sums, rtol=2e-2, atol=0.1)


@pytest.mark.slow
def test_tensors_beyond_two_to_the_31_numbers() -> None:
    """The last sequence of 40,000 gives the same as alone."""
    qkv = torch.empty(40_000, 75, 3, 8, 32, device="cuda", dtype=torch.bfloat16).normal_()
    assert qkv.numel() > 2**31
    qkv.requires_grad_()
    last = qkv[-1:].detach().clone().requires_grad_()
    upstream = torch.randn(1, 75, 256, device="cuda", dtype=torch.bfloat16)
    out, gradient = with_gradients([qkv], upstream.expand(40_000, -1, -1), backend="cuda")
    alone, alone_gradient = with_gradients([last], upstream, backend="cuda")
    assert torch.equal(out[-1:], alone)
    assert torch.equal(gradient[-1:], alone_gradient)
