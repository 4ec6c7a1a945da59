from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import fastamr
from fastamr import ops
from fastamr.testing import assert_as_good_as

SHAPES = [(2, 5, 5, 2, 16), (1, 1, 1, 1, 32), (2, 125, 75, 2, 32), (3, 17, 9, 3, 64), (1, 3, 256, 2, 8)]


def make_cross(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    sequences, queries, keys, heads, size = shape
    q = torch.randn(sequences, queries, heads, size, dtype=dtype)
    return q.requires_grad_(), torch.randn(sequences, keys, 2, heads, size, dtype=dtype).requires_grad_()


def make_self(
    sequences: int, tokens: int, heads: int, size: int, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    return torch.randn(sequences, tokens, 3, heads, size, dtype=dtype).requires_grad_()


def torch_attention(q, k, v, mask=None, scale=None) -> torch.Tensor:
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, scale=scale
    )
    return out.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "materialised"])
@pytest.mark.parametrize("shape", SHAPES)
def test_cross_and_self_against_torch(backend: str, shape: tuple[int, ...]) -> None:
    q, kv = make_cross(shape)
    found = ops.visible_attention(q, kv, backend=backend)
    expected = torch_attention(q, kv[:, :, 0], kv[:, :, 1])
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, (q, kv), upstream)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, (q, kv), upstream), strict=True):
        torch.testing.assert_close(mine, theirs)
    qkv = make_self(shape[0], shape[2], *shape[3:])
    found = ops.visible_attention(qkv, scale=0.3, backend=backend)
    expected = torch_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], scale=0.3)
    torch.testing.assert_close(found, expected)
    (mine,) = torch.autograd.grad(found.sum(), qkv)
    torch.testing.assert_close(mine, torch.autograd.grad(expected.sum(), qkv)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_as_exact_as_sdpa(dtype: torch.dtype) -> None:
    qkv = make_self(2, 75, 8, 32, dtype)
    truth_input = qkv.detach().double().requires_grad_()
    truth = ops.visible_attention(truth_input, backend="reference")
    (truth_gradient,) = torch.autograd.grad(truth.square().sum(), truth_input)
    results = {}
    for backend in ("reference", "sdpa"):
        out = ops.visible_attention(qkv, backend=backend)
        assert out.dtype == dtype
        results[backend] = out, torch.autograd.grad(out.float().square().sum(), qkv)[0]
    assert_as_good_as(results["reference"][0], truth, results["sdpa"][0])
    assert_as_good_as(results["reference"][1], truth_gradient, results["sdpa"][1])


def test_counts_hide_tokens() -> None:
    qkv = make_self(4, 7, 2, 16)
    counts = torch.tensor([7, 3, 1, 0])
    out = ops.visible_attention(qkv, counts=counts)
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv)
    for s, count in enumerate(counts.tolist()):
        assert (out[s, count:] == 0).all()
        assert (gradient[s, count:] == 0).all()
        if count:
            alone = qkv[s : s + 1, :count].detach().requires_grad_()
            expected = ops.visible_attention(alone, backend="sdpa")
            torch.testing.assert_close(out[s : s + 1, :count], expected)
            (theirs,) = torch.autograd.grad(expected.square().sum(), alone)
            torch.testing.assert_close(gradient[s : s + 1, :count], theirs)
    assert torch.isfinite(gradient).all()
    q, kv = make_cross((4, 5, 7, 2, 16))
    crossed = ops.visible_attention(q, kv, counts=counts)
    assert (crossed[3] == 0).all(), "no key: zeros, not NaN"
    torch.testing.assert_close(crossed[1:2], ops.visible_attention(q[1:2], kv[1:2, :3], backend="sdpa"))


def test_tokens_beyond_the_count_are_not_read() -> None:
    qkv = make_self(1, 6, 2, 16).detach()
    clean = ops.visible_attention(qkv, counts=torch.tensor([4]))
    qkv[:, 4:] = 1e30
    assert torch.equal(ops.visible_attention(qkv, counts=torch.tensor([4])), clean)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_keep_gathers(backend: str) -> None:
    full = make_self(2, 11, 2, 16)
    keep = torch.tensor([[0, 3, 10], [2, 4, 5]], dtype=torch.int32)
    out = ops.visible_attention(full, keep=keep, backend=backend)
    gathered = torch.stack([full[s, keep[s].long()] for s in range(2)])
    expected = ops.visible_attention(gathered, backend="materialised")
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad(out.square().sum(), full)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), full)[0])
    absent = torch.ones(2, 11, dtype=torch.bool).scatter(1, keep.long(), False)
    assert (gradient[absent] == 0).all()
    q, kv = make_cross((2, 4, 11, 2, 16))
    crossed = ops.visible_attention(q, kv, keep=keep, backend=backend)
    rows = torch.stack([kv[s, keep[s].long()] for s in range(2)])
    torch.testing.assert_close(crossed, ops.visible_attention(q, rows, backend="materialised"))


def test_cu_seqlens_equals_sequence_by_sequence() -> None:
    lengths = [3, 0, 7, 1]
    qkv = torch.randn(sum(lengths), 3, 2, 16, dtype=torch.float64, requires_grad=True)
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).int()
    out = ops.visible_attention(qkv, cu_seqlens=cu_seqlens)
    pieces = [
        ops.visible_attention(part[None], backend="sdpa")[0] for part in qkv.split(lengths) if len(part)
    ]
    expected = torch.cat(pieces)
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad(out.square().sum(), qkv)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), qkv)[0])


def bias_tables(heads: int, joints: int, times: int) -> ops.AttentionBias:
    return ops.AttentionBias(
        torch.randn(heads, joints, joints, dtype=torch.float64, requires_grad=True),
        torch.randn(heads, 2 * times - 1, dtype=torch.float64, requires_grad=True),
    )


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_bias_by_structure(backend: str) -> None:
    """The two tables against a mask written element by element, gradients of the tables included."""
    joints, times, heads = 3, 4, 2
    keep = torch.tensor([[0, 4, 7, 11], [1, 2, 8, 9]])
    bias = bias_tables(heads, joints, times)
    full = make_self(2, joints * times, heads, 16)
    out = ops.visible_attention(full, keep=keep, bias=bias, backend=backend)
    mask = torch.stack(
        [
            torch.stack(
                [
                    torch.stack(
                        [
                            bias.joints[:, a % joints, b % joints]
                            + bias.times[:, a // joints - b // joints + 3]
                            for b in row
                        ],
                        -1,
                    )
                    for a in row
                ],
                -2,
            )
            for row in keep.tolist()
        ]
    )
    gathered = torch.stack([full[s, keep[s]] for s in range(2)])
    expected = torch_attention(gathered[:, :, 0], gathered[:, :, 1], gathered[:, :, 2], mask=mask)
    torch.testing.assert_close(out, expected)
    inputs = (full, bias.joints, bias.times)
    upstream = torch.randn_like(out)
    mine = torch.autograd.grad(out, inputs, upstream)
    for found, theirs in zip(mine, torch.autograd.grad(expected, inputs, upstream), strict=True):
        torch.testing.assert_close(found, theirs)
    explicit = ops.AttentionBias(bias.joints, bias.times, keep, keep)
    torch.testing.assert_close(ops.visible_attention(gathered, bias=explicit, backend=backend), expected)


def test_gradcheck() -> None:
    q, kv = make_cross((2, 3, 4, 2, 4))
    bias = bias_tables(2, 2, 2)
    seed, counts = torch.tensor([1, 0]), torch.tensor([4, 2])

    def function(*inputs: torch.Tensor) -> torch.Tensor:
        tables = ops.AttentionBias(inputs[2], inputs[3])
        return ops.visible_attention(
            inputs[0], inputs[1], bias=tables, counts=counts, dropout=0.4, seed=seed, backend="reference"
        )

    # Queries 0..2 and keys 0..3 of 2 joints x 2 time patches.
    assert torch.autograd.gradcheck(function, (q, kv, bias.joints, bias.times))


def test_second_derivative_is_refused_or_right() -> None:
    q, kv = make_cross((1, 2, 3, 1, 4))
    out = ops.visible_attention(q, kv, backend="reference")
    (gradient,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.sum().backward()
    assert torch.autograd.gradgradcheck(
        lambda *inputs: ops.visible_attention(*inputs, backend="materialised"), (q, kv)
    )


def test_dropout_drops_the_stated_share_and_keeps_the_mean() -> None:
    """With V = identity the output is the dropped weight matrix itself."""
    tokens = 32
    qkv = torch.zeros(64, tokens, 3, 1, tokens)
    qkv[:, :, 2, 0] = torch.eye(tokens)
    seed = torch.tensor([9, 0])
    weights = ops.visible_attention(qkv, dropout=0.25, seed=seed)
    assert abs((weights == 0).float().mean() - 0.25) < 0.01
    kept = weights[weights > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / tokens / 0.75))
    assert torch.equal(weights, ops.visible_attention(qkv, dropout=0.25, seed=seed))
    assert not torch.equal(weights, ops.visible_attention(qkv, dropout=0.25, seed=seed + 1))


@pytest.mark.parametrize("backend", ["reference", "sdpa", "materialised"])
def test_extreme_logits_and_layouts(backend: str) -> None:
    qkv = make_self(2, 9, 2, 16).detach()
    qkv[:, :, 0] *= 1e4
    out = ops.visible_attention(qkv.float(), backend=backend)
    assert torch.isfinite(out).all()
    strided = make_self(2, 9, 2, 16).detach()
    other = strided.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0).requires_grad_()
    out = ops.visible_attention(other, backend=backend)
    torch.testing.assert_close(out, ops.visible_attention(strided, backend="sdpa"))
    assert torch.autograd.grad(out.sum(), other)[0].shape == other.shape
    assert ops.visible_attention(qkv[:0], backend=backend).shape == (0, 9, 32)


def test_autocast_leaves_float32_alone() -> None:
    qkv = make_self(2, 9, 2, 16).float().detach()
    with torch.autocast("cpu", torch.bfloat16):
        inside = ops.visible_attention(qkv, backend="reference")
    assert torch.equal(inside, ops.visible_attention(qkv, backend="reference"))


def test_a_named_backend_never_falls_back() -> None:
    qkv = make_self(1, 4, 1, 16)
    counts = torch.tensor([2])
    with pytest.raises(RuntimeError, match=r"backend 'sdpa' cannot run visible_attention: .*counts"):
        ops.visible_attention(qkv, counts=counts, backend="sdpa")
    with fastamr.backend(visible_attention="sdpa"), pytest.raises(RuntimeError, match="counts"):
        ops.visible_attention(qkv, counts=counts)
    assert torch.isfinite(ops.visible_attention(qkv, counts=counts)).all()


def test_errors() -> None:
    q, kv = make_cross((2, 3, 4, 2, 16))
    qkv = make_self(2, 4, 2, 16)
    ids = torch.zeros(3, 2, dtype=torch.int32)
    cases = [
        ((qkv[:, :, :2],), {}, "qkv must have shape"),
        ((q, kv[:, :, :1]), {}, "kv must have shape"),
        ((q, kv[:1]), {}, "kv must have shape"),
        ((qkv,), {"keep": ids}, "keep must have shape"),
        ((qkv,), {"counts": torch.tensor([1])}, "counts must have shape"),
        ((qkv,), {"dropout": 1.0}, "dropout=1.0"),
        ((qkv,), {"dropout": 0.1}, "needs a seed"),
        ((q, kv), {"cu_seqlens": torch.tensor([0, 2])}, "self-attention only"),
        ((qkv[0],), {"cu_seqlens": torch.tensor([0, 4]), "counts": torch.tensor([4])}, "excludes"),
        ((qkv,), {"bias": ops.AttentionBias(torch.zeros(2, 3, 3), torch.zeros(2, 4))}, "odd number"),
        ((qkv,), {"bias": ops.AttentionBias(torch.zeros(1, 3, 3), torch.zeros(2, 3))}, "bias.joints"),
        ((qkv,), {"backend": "sdqa"}, "did you mean 'sdpa'"),
    ]
    for arguments, options, match in cases:
        with pytest.raises(ValueError, match=match):
            ops.visible_attention(*arguments, **options)
    with pytest.raises(TypeError, match="kv must be of dtype float64"):
        ops.visible_attention(q, kv.float())
