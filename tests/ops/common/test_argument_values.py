"""Arguments that would lead outside a tensor, that are empty or that share memory: refused, or a defined result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastamr import ops

BACKENDS = ["reference", pytest.param("cpp", marks=pytest.mark.extension)]
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def gradients(output: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output.sum(), inputs)


@every_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("biased", [False, True])
def test_no_visible_token_gives_zeros(backend: str, dtype: torch.dtype, biased: bool) -> None:
    junk = [torch.full((3, 25, 3, 2, 16), 7.0, dtype=dtype) for _ in range(4)]
    del junk  # memory with contents is handed out again
    qkv = torch.randn(3, 25, 3, 2, 16).to(dtype).requires_grad_()
    tables = [torch.randn(2, 5, 5, requires_grad=True), torch.randn(2, 9, requires_grad=True)]
    bias = ops.AttentionBias(*tables) if biased else None
    none = torch.zeros(3, 0, dtype=torch.int64)
    out = ops.visible_attention(qkv, keep=none, bias=bias, backend=backend)
    assert out.shape == (3, 0, 32)
    for gradient in gradients(out, qkv, *(tables if biased else ())):
        assert not gradient.any()
    q, kv = (torch.randn(shape).to(dtype).requires_grad_() for shape in ((3, 4, 2, 16), (3, 25, 2, 2, 16)))
    out = ops.visible_attention(q, kv, keep=none, bias=bias, backend=backend)
    assert out.shape == (3, 4, 32)
    assert not out.any()
    for gradient in gradients(out, q, kv):
        assert not gradient.any()


@every_backend
def test_bias_tables_without_a_joint(backend: str) -> None:
    bias = ops.AttentionBias(torch.zeros(2, 0, 0, requires_grad=True), torch.zeros(2, 3, requires_grad=True))
    with pytest.raises(ValueError, match=r"bias.joints has shape \(2, 0, 0\): expected at least one joint"):
        ops.visible_attention(torch.randn(1, 4, 3, 2, 16), bias=bias, backend=backend)
    for shape in ((0, 4, 3, 2, 16), (3, 0, 3, 2, 16)):
        qkv = torch.randn(shape, requires_grad=True)
        out = ops.visible_attention(qkv, bias=bias, backend=backend)
        assert [gradient.any() for gradient in gradients(out, qkv, bias.joints, bias.times)] == [False] * 3


@every_backend
@pytest.mark.parametrize("count", [0, 1])
def test_no_sequence(backend: str, count: int) -> None:
    qkv = torch.randn(0, 3, 2, 16)
    if count == 0:
        with pytest.raises(ValueError, match="cu_seqlens is empty"):
            ops.visible_attention(qkv, cu_seqlens=torch.zeros(0, dtype=torch.int32), backend=backend)
    else:
        out = ops.visible_attention(qkv, cu_seqlens=torch.zeros(1, dtype=torch.int32), backend=backend)
        assert out.shape == (0, 32)


# Beyond int32: cut to its low 32 bits each of these numbers would be a valid one.
WRAPPED = 2**32


@every_backend
@pytest.mark.parametrize("bad", [-1, 6, WRAPPED + 1, -WRAPPED])
def test_indices_out_of_range(backend: str, bad: int) -> None:
    qkv, clips = torch.randn(2, 6, 3, 1, 16), torch.randn(2, 4, 3, 3)
    keep = torch.tensor([[0, 1], [2, bad]])
    with pytest.raises(ValueError, match=f"keep lists token {bad} in sequence 1: expected 0 to 5"):
        ops.visible_attention(qkv, keep=keep, backend=backend)
    for call in (
        lambda: ops.patch_gather(clips, keep, patch_frames=2),
        lambda: ops.masked_patch_gather(
            clips, keep, torch.randn(8, 6), torch.randn(8), torch.randn(6, 8), patch_frames=2
        ),
    ):
        with pytest.raises(ValueError, match=f"keep lists token {bad} in sequence 1: expected 0 to 5"):
            call()
    out = ops.visible_attention(qkv, keep=keep, counts=torch.tensor([2, 1]), backend=backend)
    right = ops.visible_attention(
        qkv, keep=torch.tensor([[0, 1], [2, 0]]), counts=torch.tensor([2, 1]), backend=backend
    )
    assert torch.equal(out, right), "a token that does not exist may have any id"


@every_backend
@pytest.mark.parametrize("which", ["query_ids", "key_ids"])
@pytest.mark.parametrize("bad", [-1, 12, WRAPPED])
def test_bias_ids_out_of_range(backend: str, which: str, bad: int) -> None:
    ids = {which: torch.tensor([[0, 1, 2, bad]])}
    bias = ops.AttentionBias(torch.zeros(1, 3, 3), torch.zeros(1, 3), **ids)
    with pytest.raises(ValueError, match=r"needs ids of at least 0|further apart than the 1 time patches"):
        ops.visible_attention(torch.randn(1, 4, 3, 1, 16), bias=bias, backend=backend)


@every_backend
@pytest.mark.parametrize(
    "bad", [[0, 4], [0, 7], [1, 6], [0, 5, 3, 6], [0, 2**63 - 1, -(2**63), 6], [WRAPPED, 6]]
)
def test_lengths_that_do_not_add_up(backend: str, bad: list[int]) -> None:
    with pytest.raises(ValueError, match="cu_seqlens must begin with 0"):
        ops.visible_attention(torch.randn(6, 3, 1, 16), cu_seqlens=torch.tensor(bad), backend=backend)


@every_backend
def test_counts_beyond_int32_are_all_tokens(backend: str) -> None:
    qkv = torch.randn(2, 6, 3, 1, 16)
    out = ops.visible_attention(qkv, counts=torch.tensor([WRAPPED, -WRAPPED + 3]), backend=backend)
    assert torch.equal(out, ops.visible_attention(qkv, counts=torch.tensor([6, 0]), backend=backend))


def test_frames_out_of_range() -> None:
    def sample(offsets: list[int], ids: list[int]) -> torch.Tensor:
        numbers = torch.tensor(offsets, dtype=torch.int64)
        return ops.sample_clips(
            torch.randn(10, 3, 3), numbers, torch.tensor(ids), 4, None, crop=(1.0,), max_angle=0.0
        )

    assert sample([2, 5, 9], [1, 0]).shape == (2, 4, 3, 3)
    for ids, bad in (([0, 2], 2), ([-1, 0], -1)):
        with pytest.raises(ValueError, match=rf"sequence_ids lists sequence {bad} at .: expected 0 to 1"):
            sample([0, 4, 10], ids)
    for offsets in ([0, 4, 11], [-1, 4, 10], [0, 4, 4], [0, 2**63 - 1, -(2**63)]):
        with pytest.raises(ValueError, match=r"offsets: sequence . has the frames"):
            sample(offsets, [0, 1])
    with pytest.raises(ValueError, match="offsets is empty"):
        sample([], [0])


@pytest.mark.parametrize("dropout", [1.0, 1 - 2**-40, -0.1, float("nan")])
def test_dropout_of_all_weights(dropout: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        ops.visible_attention(torch.randn(1, 4, 3, 1, 16), dropout=dropout, seed=ops.make_seed())


def backward_arguments() -> dict[str, Any]:
    x = torch.randn(2, 7, 3, 2, 16)
    out, lse = ops.visible_attention_forward(x, backend="reference")
    return {"grad": torch.randn_like(out), "out": out, "lse": lse, "q": x, "dq": torch.empty_like(x)}


WRONG: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "smaller": lambda x: x[:1],
    "a dimension less": lambda x: x[0],
    "float64": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "elsewhere": lambda x: x.to("meta"),
}


@every_backend
@pytest.mark.parametrize("name", ["grad", "out", "lse", "dq"])
@pytest.mark.parametrize("wrong", WRONG)
def test_backward_into_looks_at_everything(backend: str, name: str, wrong: str) -> None:
    given = backward_arguments()
    given[name] = WRONG[wrong](given[name])
    with pytest.raises((TypeError, ValueError), match=f"^{name} "):
        ops.visible_attention_backward_into(**given, backend=backend)


@every_backend
def test_backward_into_what_shares_memory(backend: str) -> None:
    given = backward_arguments()
    x = given["q"]

    def refused(match: str, **changed: torch.Tensor) -> None:
        with pytest.raises(ValueError, match=match):
            ops.visible_attention_backward_into(**{**given, **changed}, backend=backend)

    refused("dq shares memory with q", dq=x)
    refused("its elements share memory", dq=torch.empty(1, 7, 3, 2, 16).expand(2, 7, 3, 2, 16))
    buffer = torch.empty(2, 7, 3, 2, 16)
    refused("dq shares memory with columns", dq=buffer, columns=buffer.view(-1)[:96].view(3, 2, 16))
    refused("dq shares memory with grad", dq=buffer, grad=buffer.view(-1)[: 2 * 7 * 32].view(2, 7, 32))
    # Slices that lie between one another share nothing.
    q, kv = x[:, :, 0].contiguous(), x[:, :, 1:].contiguous()
    out, lse = ops.visible_attention_forward(q, kv, backend=backend)
    grad, both = torch.randn_like(out), torch.full((2, 7, 3, 2, 16), float("nan"))
    ops.visible_attention_backward_into(
        grad, out, lse, q, kv, dq=both[:, :, 0], dkv=both[:, :, 1:], backend=backend
    )
    ops.visible_attention_backward_into(grad, out, lse, x, dq=buffer, backend=backend)
    torch.testing.assert_close(both, buffer)


def test_a_weight_gradient_into_its_input() -> None:
    x = torch.randn(8, 8)
    with pytest.raises(ValueError, match="out shares memory with x"):
        ops.weight_gradient(torch.randn(8, 8), x, out=x)


def test_updates_of_what_shares_memory() -> None:
    def update(**changed: list[torch.Tensor]) -> None:
        given = {name: [torch.randn(4, 3).abs() for _ in range(3)] for name in names}
        given |= {"steps": [torch.zeros(()) for _ in range(3)]} | changed
        ops.adamw_update(**given, lr=torch.tensor(0.1))

    names = ("parameters", "gradients", "exp_avgs", "exp_avg_sqs")
    buffer = torch.randn(8, 6).abs()
    apart = [buffer[:4, :3], buffer[4:, :3], buffer[4:, 3:]]
    update(parameters=apart)
    update(gradients=[buffer[:4, :3]] * 3)  # what is only read may be anything
    with pytest.raises(ValueError, match=r"parameters\[0\] shares memory with parameters\[2\]"):
        update(parameters=[apart[0], apart[1], apart[0]])
    with pytest.raises(ValueError, match=r"parameters\[1\] shares memory with parameters\[2\]"):
        update(parameters=[torch.randn(4, 3), apart[1], buffer[3:7, 1:4]])
    with pytest.raises(ValueError, match=r"exp_avgs\[0\] shares memory with gradients\[0\]"):
        update(exp_avgs=apart, gradients=apart)
    with pytest.raises(ValueError, match=r"parameters\[0\] has strides"):
        update(parameters=[torch.randn(1, 3).expand(4, 3), *apart[1:]])
