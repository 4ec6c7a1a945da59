"""The second branch of a stack's backward, on streams that stand in for a GPU's: order, memory, errors, same bits."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr import ops
from fastamr.models import build_model
from fastamr.nn import TransformerStack
from fastamr.nn.stacks.side_branch import side_branch

from .late_streams import LateStreams, delayed
from .stack_cases import DEPTH, Stack, inputs_for, run


def doubled(streams: LateStreams, value: Tensor) -> Tensor:
    return streams.late(lambda: 2 * value, (value,))


def test_work_is_forked_behind_what_came_before_and_joined_one_call_later() -> None:
    streams = LateStreams()
    with streams.branch() as branch:
        found = []
        for number in range(3):
            value = torch.full((2,), float(number))
            found.append(branch.run(functools.partial(doubled, streams, value), value))
            del value
            done = [not result.isnan().any() for result in found]
            assert done == [True] * number + [False], "all but the last call"
    fork = ["side waits for main", "side computes"]
    first, second = (f"main waits for {count} on side" for count in (1, 2))
    assert streams.log == [*fork, *fork, first, *fork, second, "main waits for side"]
    assert [result[0].item() for result in found] == [0.0, 2.0, 4.0]


def test_inputs_live_until_the_next_call_and_no_longer() -> None:
    streams, lives = LateStreams(), []
    with streams.branch() as branch:
        for number in range(4):
            value = torch.ones(3)
            lives.append(weakref.ref(value))
            branch.run(lambda: None, value)
            del value
            assert [life() is not None for life in lives] == [False] * number + [True]
        branch.join()
        assert lives[-1]() is None
        before = list(streams.log)
        branch.join()
        assert streams.log == before, "nothing to wait for"


def test_without_work_the_streams_never_meet() -> None:
    streams = LateStreams()
    with streams.branch():
        pass
    assert streams.log == []


def test_an_error_inside_joins_and_gives_back() -> None:
    streams, lives, found = LateStreams(breaks=1), [], []

    def fails_second() -> None:
        with streams.branch() as branch:
            for _ in range(2):
                value = torch.ones(2)
                lives.append(weakref.ref(value))
                found.append(branch.run(functools.partial(doubled, streams, value), value))

    with pytest.raises(ValueError, match="this computation fails"):
        fails_second()
    assert streams.log[-1] == "main waits for side"
    assert (found[0] == 2).all()
    gc.collect()
    assert [life() for life in lives] == [None, None]


def test_a_join_that_fails_hides_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a recording that broke off."""
    streams, value = LateStreams(), torch.ones(2)

    def refuse(other: Any) -> None:
        raise RuntimeError("the recording is invalid")

    monkeypatch.setattr(streams.main, "wait_stream", refuse)
    branch = streams.branch()

    def work(error: Exception | None) -> None:
        with branch:
            branch.run(lambda: None, value)
            if error is not None:
                raise error

    with pytest.raises(KeyError, match="first"):
        work(KeyError("first"))
    assert branch._held == []
    with pytest.raises(RuntimeError, match="the recording is invalid"):
        work(None)
    assert branch._held == []


def test_a_cpu_has_none_and_nobody_gets_one_unasked() -> None:
    with side_branch(True, torch.device("cpu")) as branch:
        assert branch is None
    with side_branch(False, torch.device("cuda")) as branch:
        assert branch is None


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["self", "cross", "queries of each"])
def test_a_stack_has_the_same_bits(
    kind: str, dtype: torch.dtype, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bfloat16 parameters convert their gradients, which reads them before the backward returns."""
    kind, _, own = kind.partition(" ")
    kind = "cross" if own else kind
    module = Stack(kind).to(dtype)
    inputs = [each.to(dtype) for each in inputs_for(kind, **({"shared": False} if own else {}))]
    module.blocks.recompute = recompute
    inline = run(module, inputs, "fused")
    module.blocks.side_branch = True
    streams = LateStreams()
    delayed(streams, ops, monkeypatch)
    beside = run(module, inputs, "fused")
    assert all(torch.equal(beside[name], inline[name]) for name in inline)
    fork = ["side waits for main", "side computes"]
    works = DEPTH + (kind == "cross")
    waits = [[f"main waits for {count} on side"] for count in range(1, works)]
    expected = fork + [line for wait in waits for line in (*fork, *wait)]
    assert streams.log == [*expected, "main waits for side"]


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_frozen_weights_and_twice(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is frozen is not computed; the saved tensors of a retained graph serve a second backward."""
    module, inputs = Stack(kind), [each.float() for each in inputs_for(kind)]
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("fc1.weight" in name or name.startswith("blocks.1."))
    inline = run(module, inputs, "fused")
    module.blocks.side_branch = True
    delayed(LateStreams(), ops, monkeypatch)
    module.zero_grad()
    with fastamr.backend(transformer_stack="fused"):
        out = module(*inputs)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)
    loss = (out.double() * weights).sum()
    for times in (1, 2):
        loss.backward(retain_graph=times == 1)
        for name, parameter in module.named_parameters():
            assert (parameter.grad is None) == (inline[name] is None)
            if parameter.grad is not None:
                assert torch.equal(parameter.grad, times * inline[name])


def test_an_error_in_a_backward_is_the_error_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    module, (x,) = Stack("self"), [each.float() for each in inputs_for("self")]
    module.blocks.side_branch = True
    streams = LateStreams(breaks=1)
    delayed(streams, ops, monkeypatch)
    with fastamr.backend(transformer_stack="fused"):
        out = module(x)
    with pytest.raises(ValueError, match="this computation fails"):
        out.sum().backward()
    assert streams.log[-1] == "main waits for side"
    assert all(computed is None for computed in streams.issued)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_on_the_kernels_a_layer_is_one_call(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a branch the weights of a layer wait for each other only where one launch takes them together."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("the interpreter is chosen before Triton is imported, and this machine compiles")
    module, inputs = Stack(kind, depth=2), [each.float() for each in inputs_for(kind)]
    sizes: list[int] = []
    several = ops.weight_gradients

    def counted(pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        sizes.append(len(pairs))
        return several(pairs)

    monkeypatch.setattr(ops, "weight_gradients", counted)
    plain = run(module, inputs, "fused")
    assert sizes == []
    with fastamr.backend(weight_gradient="triton"):
        found = run(module, inputs, "fused")
    assert sizes == [4, 4]
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))


def test_models_hand_it_to_all_stacks() -> None:
    sizes = {"depth": 1, "heads": 1, "decoder_depth": 1, "decoder_heads": 1}
    model = build_model("amr", {"frames": 24, "width": 16, "decoder_width": 16, **sizes})
    stacks = [each for each in model.modules() if hasattr(each, "side_branch")]
    assert len(stacks) == 2
    assert any(isinstance(each, TransformerStack) for each in stacks)
    assert not any(each.side_branch for each in stacks), "off until it is measured"
    model.set_side_branch()
    assert all(each.side_branch for each in stacks)
    model.set_side_branch(False)
    assert not any(each.side_branch for each in stacks)
