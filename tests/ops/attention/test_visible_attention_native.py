"""The C++ kernel against float64 and PyTorch's SDPA, for every form and option of the op."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fastamr import ops
from fastamr.ops.attention.checks import structure_of
from fastamr.reference.attention.visible_attention import visible_attention as reference_attention
from fastamr.testing import assert_as_good_as

pytestmark = pytest.mark.extension

DTYPES = [torch.float32, torch.bfloat16, torch.float64]
OPTIONS = [
    "plain",
    "keep",
    "keep twice",
    "counts",
    "keep counts",
    "bias",
    "bias ids",
    "dropout",
    "everything",
]
SEED = torch.tensor([5, 2**33 + 7])


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def tables(heads: int, joints: int, times: int, dtype: torch.dtype) -> ops.AttentionBias:
    return ops.AttentionBias(
        torch.randn(heads, joints, joints).to(dtype).requires_grad_(),
        torch.randn(heads, 2 * times - 1).to(dtype).requires_grad_(),
    )


def options_of(
    name: str, sequences: int, queries: int, keys: int, heads: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Optional arguments of the op; keep lists ``keys`` of ``keys + 7`` rows."""
    options: dict[str, Any] = {}
    if "keep" in name or name == "everything":
        rows = torch.stack([torch.randperm(keys + 7)[:keys] for _ in range(sequences)]).int()
        if name == "keep twice":
            rows[:, -1] = rows[:, 0]
        options["keep"] = rows
    if "counts" in name or name == "everything":
        options["counts"] = torch.randint(0, keys + 1, (sequences,))
        options["counts"][0], options["counts"][-1] = keys, 0
    if "bias" in name or name == "everything":
        joints, times = 5, (keys + 7) // 5 + 60
        options["bias"] = tables(heads, joints, times, dtype)
        if name == "bias ids":
            ids = (torch.randint(0, joints * times, (sequences, count)) for count in (queries, keys))
            options["bias"] = options["bias"]._replace(
                **dict(zip(("query_ids", "key_ids"), ids, strict=True))
            )
    if name in ("dropout", "everything"):
        options |= {"dropout": 0.3, "seed": SEED}
    return options


def make(
    form: str, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Inputs and options of a self- or cross-attention of ``shape = (S, Nq, Nk, H, E)``."""
    sequences, queries, keys, heads, size = shape
    queries = keys if form == "self" else queries
    options = options_of(name, sequences, queries, keys, heads, dtype)
    rows = keys + 7 if "keep" in options else keys
    if form == "self":
        inputs = [torch.randn(sequences, rows, 3, heads, size)]
    else:
        inputs = [torch.randn(sequences, queries, heads, size), torch.randn(sequences, rows, 2, heads, size)]
    return [x.to(dtype).requires_grad_() for x in inputs], options


def outcome(
    inputs: list[torch.Tensor], options: dict[str, Any], backend: str, upstream: torch.Tensor | None = None
):
    """Output and the gradients of everything that has one."""
    out = ops.visible_attention(*inputs, **options, backend=backend)
    if upstream is None:
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    bias = options.get("bias")
    targets = [*inputs, *([] if bias is None else [bias.joints, bias.times])]
    return [out, *torch.autograd.grad(out, targets, upstream.to(out.dtype))]


def in_double(
    inputs: list[torch.Tensor], options: dict[str, Any]
) -> tuple[list[torch.Tensor], dict[str, Any]]:
    options = dict(options)
    if "bias" in options:
        bias = options["bias"]
        options["bias"] = bias._replace(
            joints=bias.joints.detach().double().requires_grad_(),
            times=bias.times.detach().double().requires_grad_(),
        )
    return [x.detach().double().requires_grad_() for x in inputs], options


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["self", "cross"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_as_exact_as_torch(name: str, form: str, dtype: torch.dtype) -> None:
    """Error against float64 at most twice that of SDPA, or of the plain form where SDPA has none."""
    inputs, options = make(form, name, (4, 13, 21, 2, 32), dtype)
    exact = outcome(*in_double(inputs, options), backend="reference")
    peer = "sdpa" if {"counts", "dropout"}.isdisjoint(options) else "reference"
    for found, truth, theirs in zip(
        outcome(inputs, options, "cpp"), exact, outcome(inputs, options, peer), strict=True
    ):
        assert found.dtype == dtype
        assert found.shape == truth.shape
        assert_as_good_as(found, truth, theirs, floor=1e-14 if dtype == torch.float64 else 2e-7)


# One token, tile multiples and their neighbours (16 lanes, 12 rows, 96 queries), the largest, Nq != Nk.
@pytest.mark.parametrize(
    ("queries", "keys"),
    [
        (1, 1),
        (3, 1),
        (1, 256),
        (11, 15),
        (12, 16),
        (13, 17),
        (96, 31),
        (97, 33),
        (191, 75),
        (300, 255),
        (256, 256),
    ],
)
@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_size(queries: int, keys: int, size: int, dtype: torch.dtype) -> None:
    inputs, options = make("cross", "plain", (2, queries, keys, 1, size), dtype)
    exact = outcome(*in_double(inputs, options), backend="reference")
    for found, truth, theirs in zip(
        outcome(inputs, options, "cpp"), exact, outcome(inputs, options, "sdpa"), strict=True
    ):
        assert_as_good_as(found, truth, theirs, floor=1e-14 if dtype == torch.float64 else 2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ragged_rows(dtype: torch.dtype) -> None:
    lengths = [3, 0, 75, 1, 16, 256]
    qkv = torch.randn(sum(lengths), 3, 2, 32).to(dtype).requires_grad_()
    for dropout in (0.0, 0.2):
        options = {"cu_seqlens": torch.tensor([0, *lengths]).cumsum(0), "dropout": dropout, "seed": SEED}
        exact = outcome(*in_double([qkv], options), backend="reference")
        peer = outcome([qkv], options, "reference")
        for found, truth, theirs in zip(outcome([qkv], options, "cpp"), exact, peer, strict=True):
            assert_as_good_as(found, truth, theirs, floor=1e-14 if dtype == torch.float64 else 2e-7)


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_log_sum_exp(name: str) -> None:
    inputs, options = make("cross", name, (4, 13, 21, 2, 32), torch.float32)
    counts = options.get("counts")
    arguments = {key: options.get(key) for key in ("keep", "counts", "bias", "seed")}
    structure = structure_of(
        *inputs, cu_seqlens=None, scale=None, dropout=options.get("dropout", 0.0), **arguments
    )
    rest = (structure.joint_bias, structure.time_bias, None, None, structure.seed, structure.scale)
    _, lse = torch.ops.fastamr.visible_attention(
        *inputs, structure.keep, counts, None, *rest, structure.dropout, "cpp"
    )
    exact = reference_attention(*[x.double() for x in inputs], structure)[1]
    torch.testing.assert_close(lse, exact.float())
    if counts is not None:
        assert (lse[counts == 0] == float("-inf")).all()


def test_dropout_mask_is_the_references() -> None:
    """With V = identity the output is the dropped weight matrix itself."""
    qkv = torch.zeros(3, 64, 3, 2, 64)
    qkv[:, :, 2] = torch.eye(64)[:, None]
    found, expected = (
        ops.visible_attention(qkv, dropout=0.4, seed=SEED, backend=b) for b in ("cpp", "reference")
    )
    assert torch.equal(found == 0, expected == 0)
    assert 0.35 < (found == 0).float().mean() < 0.45


def test_absent_tokens_are_neither_read_nor_given_a_gradient() -> None:
    (qkv,), _ = make("self", "plain", (3, 0, 20, 2, 16), torch.float32)
    counts = torch.tensor([20, 9, 0])
    clean = ops.visible_attention(qkv, counts=counts, backend="cpp")
    spoiled = qkv.detach().clone()
    spoiled[1, 9:] = float("nan")
    spoiled[2] = float("nan")
    spoiled.requires_grad_()
    out = ops.visible_attention(spoiled, counts=counts, backend="cpp")
    assert torch.equal(out, clean)
    upstream = torch.full_like(out, float("nan"))
    upstream[0], upstream[1, :9] = 1.0, 1.0
    (gradient,) = torch.autograd.grad(out, spoiled, upstream)
    assert torch.isfinite(gradient).all()
    assert (gradient[1, 9:] == 0).all()
    assert (gradient[2] == 0).all()


@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_extreme_logits(logit: float) -> None:
    """Scores of +-1e4 and more, whole rows of them nearly equal: finite, and as exact as SDPA."""
    qkv = torch.randn(2, 30, 3, 2, 16)
    qkv[:, :, 0] = logit / 16
    qkv[:, :, 1] = 4 + 0.001 * torch.randn(2, 30, 1, 1)
    qkv.requires_grad_()
    exact = outcome(*in_double([qkv], {}), backend="reference")
    for found, truth, theirs in zip(
        outcome([qkv], {}, "cpp"), exact, outcome([qkv], {}, "sdpa"), strict=True
    ):
        assert_as_good_as(found, truth, theirs)
    one_wins = qkv.detach() * torch.linspace(-1, 1, 30)[None, :, None, None, None] * 1e3
    found = ops.visible_attention(one_wins, backend="cpp")
    torch.testing.assert_close(found, ops.visible_attention(one_wins, backend="sdpa"))


def test_a_bias_of_minus_infinity_hides_keys_and_whole_rows() -> None:
    (qkv,), _ = make("self", "plain", (1, 0, 12, 1, 16), torch.float64)
    joints = torch.zeros(1, 3, 3, dtype=torch.float64)
    joints[:, 0, 1] = float("-inf")
    joints[:, 2] = float("-inf")
    bias = ops.AttentionBias(joints, torch.zeros(1, 7, dtype=torch.float64))
    found = ops.visible_attention(qkv, bias=bias, backend="cpp")
    torch.testing.assert_close(found, ops.visible_attention(qkv, bias=bias, backend="reference"))
    assert (found[:, 2::3] == 0).all()
    assert torch.isfinite(torch.autograd.grad(found.sum(), qkv)[0]).all()


def test_nan_spreads_to_its_rows_only() -> None:
    qkv = torch.randn(2, 9, 3, 1, 16)
    qkv[0, 3, 0] = float("nan")
    out = ops.visible_attention(qkv, backend="cpp")
    assert torch.isnan(out[0, 3]).all()
    assert torch.isfinite(out[1]).all()
    assert torch.isfinite(out[0, :3]).all()


def test_layouts() -> None:
    """Any strides, an expanded query, gradients of stride 0, a slice of a larger buffer, no sequences at all."""
    qkv = torch.randn(2, 9, 3, 2, 16)
    expected = ops.visible_attention(qkv, backend="sdpa")
    scrambled = qkv.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0).requires_grad_()
    out = ops.visible_attention(scrambled, backend="cpp")
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad(out.sum(), scrambled)
    plain = qkv.requires_grad_()
    (theirs,) = torch.autograd.grad(ops.visible_attention(plain, backend="sdpa").sum(), plain)
    torch.testing.assert_close(gradient, theirs)
    q, buffer = torch.randn(1, 5, 2, 16).expand(3, -1, -1, -1), torch.randn(3, 9, 4, 2, 2, 16)
    torch.testing.assert_close(
        ops.visible_attention(q, buffer[:, :, 2], backend="cpp"),
        ops.visible_attention(q, buffer[:, :, 2], backend="sdpa"),
    )
    empty = qkv.detach()[:0].requires_grad_()
    out = ops.visible_attention(empty, backend="cpp")
    assert out.shape == (0, 9, 32)
    assert torch.autograd.grad(out.sum(), empty)[0].shape == empty.shape
    no_keys = ops.visible_attention(q, buffer[:, :0, 0], backend="cpp")
    assert (no_keys == 0).all()


def test_bit_identical_over_runs_and_threads(threads: int) -> None:
    torch.manual_seed(3)
    inputs, options = make("self", "everything", (70, 0, 17, 2, 16), torch.float32)
    torch.set_num_threads(1)
    first = outcome(inputs, options, "cpp")
    torch.set_num_threads(threads)
    for _ in range(3):
        for found, expected in zip(outcome(inputs, options, "cpp"), first, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["plain", "everything"])
@pytest.mark.parametrize("form", ["self", "cross"])
def test_gradcheck(form: str, name: str) -> None:
    inputs, options = make(form, name, (2, 3, 4, 1, 16), torch.float64)
    count = len(inputs)
    if "bias" in options:
        inputs += [options["bias"].joints, options["bias"].times]

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        if "bias" in options:
            options["bias"] = ops.AttentionBias(*tensors[count:])
        return ops.visible_attention(*tensors[:count], **options, backend="cpp")

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("form", ["self", "cross", "ragged"])
def test_backward_into_slices_with_column_sums(form: str, backend: str) -> None:
    shape = (3, 10, 19, 2, 16)
    inputs, options = make("self" if form == "ragged" else form, "plain", shape, torch.float32)
    if form == "ragged":
        inputs = [inputs[0].detach().flatten(0, 1).requires_grad_()]
        options["cu_seqlens"] = torch.tensor([0, 5, 5, 57])
    out, *expected = outcome(inputs, options, "cpp")
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    none = (None,) * (9 if len(inputs) == 1 else 8)
    if form == "ragged":
        none = (None, None, None, options["cu_seqlens"], *(None,) * 5)
    lse = torch.ops.fastamr.visible_attention(*inputs, *none, 0.25, 0.0, "cpp")[1]
    buffers = [torch.full((*x.shape[:-2], 2, *x.shape[-2:]), float("nan")) for x in inputs]
    targets = [buffer[..., 1, :, :] for buffer in buffers]
    columns = torch.full((3, 2, 16), float("nan"))
    result = ops.visible_attention_backward_into(
        *(upstream, out.detach(), lse, *[x.detach() for x in inputs]),
        **dict(zip(("dq", "dkv"), targets, strict=False)),
        columns=columns,
        **options,
        backend=backend,
    )
    assert result == (None, None)
    for found, truth, buffer in zip(targets, expected, buffers, strict=True):
        torch.testing.assert_close(found, truth)
        assert torch.isnan(buffer[..., 0, :, :]).all(), "nothing beside the slice is written"
    parts = [
        x.flatten(0, -4) if x.ndim > 4 or form == "ragged" else x.flatten(0, 1)[:, None] for x in expected
    ]
    torch.testing.assert_close(columns, torch.cat([part.sum(0) for part in parts]))


def test_backward_into_refuses_what_does_not_fit() -> None:
    qkv = torch.randn(1, 4, 3, 1, 16)
    out, lse = torch.ops.fastamr.visible_attention(qkv, *(None,) * 9, 0.25, 0.0, "cpp")
    call = lambda **rest: ops.visible_attention_backward_into(out, out, lse, qkv, **rest)  # noqa: E731
    with pytest.raises(ValueError, match="dq must have shape"):
        call(dq=torch.empty(1, 4, 3, 16, 1))
    with pytest.raises(ValueError, match="dq has stride 2 over E"):
        call(dq=torch.empty(1, 4, 3, 1, 32)[..., ::2])
    with pytest.raises(ValueError, match="dkv must be given exactly where kv is"):
        call(dq=torch.empty_like(qkv), dkv=torch.empty(1))
    with pytest.raises(TypeError, match="columns must be of dtype float32"):
        call(dq=torch.empty_like(qkv), columns=torch.empty(3, 1, 16, dtype=torch.float64))
