"""What only a GPU can show of the second branch: the same bits under real overlap, recorded and not, and its memory.

Attention is the reference's, whose backward repeats bit for bit.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastamr
from fastamr import ops

from .stack_cases import Stack, run

pytestmark = pytest.mark.gpu

SEQUENCES, TOKENS, QUERIES, WIDTH = 64, 75, 125, 256


def build(kind: str, depth: int = 3, recompute: bool = False) -> Stack:
    """A stack of the papers' width."""
    module = Stack(kind, depth=depth, width=WIDTH, attention="reference").cuda()
    for block in module.blocks:
        block.attn.heads, block.attn.size = 8, WIDTH // 8
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    module.blocks.recompute = recompute
    return module


def inputs_for(kind: str) -> list[Tensor]:
    memory = torch.randn(SEQUENCES, TOKENS, WIDTH, device="cuda")
    return [memory] if kind == "self" else [torch.randn(1, QUERIES, WIDTH, device="cuda"), memory]


def call(module: Stack, inputs: list[Tensor], dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """Output and gradients of the fused stack."""

    def under_autocast(*leaves: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            return module(*leaves)

    return run(module, inputs, "fused", under_autocast)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    unequal = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert unequal == []


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_same_bits_eagerly(kind: str, dtype: torch.dtype, recompute: bool, backend: str) -> None:
    module = build(kind, recompute=recompute)
    with fastamr.backend(weight_gradient=backend):
        for _ in range(10):
            inputs = inputs_for(kind)
            module.blocks.side_branch = False
            inline = call(module, inputs, dtype)
            assert_same(call(module, inputs, dtype), inline)
            module.blocks.side_branch = True
            assert_same(call(module, inputs, dtype), inline)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_same_bits_beside_a_stream_of_the_users(kind: str) -> None:
    module, inputs = build(kind), inputs_for(kind)
    inline = call(module, inputs)
    module.blocks.side_branch = True
    own = torch.cuda.Stream()
    own.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(own):
        for _ in range(10):
            found = call(module, inputs)
    torch.cuda.current_stream().wait_stream(own)
    assert_same(found, inline)


def test_the_work_is_on_another_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = build("cross"), inputs_for("cross")
    module.blocks.side_branch = True
    seen: list[tuple[str, torch.cuda.Stream]] = []
    for name in ("weight_gradient", "weight_gradients"):
        function = getattr(ops, name)

        def noted(*arguments: Any, name: str = name, function: Any = function) -> Any:
            seen.append((name, torch.cuda.current_stream()))
            return function(*arguments)

        monkeypatch.setattr(ops, name, noted)
    call(module, inputs)
    assert [name for name, _ in seen] == ["weight_gradients"] * 3 + ["weight_gradient"]
    assert len({stream.cuda_stream for _, stream in seen}) == 1
    assert seen[0][1] != torch.cuda.current_stream()


class Recorded:
    """Forward and backward of a stack in one CUDA graph, with inputs and gradients at fixed addresses."""

    def __init__(self, module: Stack, inputs: list[Tensor]) -> None:
        self.module, self.inputs = module, [each.clone() for each in inputs]
        stream, self.graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call(module, self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        gc.collect()
        with torch.cuda.graph(self.graph, stream=stream):
            self.found = call(module, self.inputs)

    def __call__(self, inputs: list[Tensor]) -> dict[str, Any]:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return self.found


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_same_bits_over_many_replays(kind: str, recompute: bool, backend: str) -> None:
    """Inline recording against branched recording, while other work takes and gives memory in between."""
    with fastamr.backend(weight_gradient=backend):
        inline = build(kind, depth=6, recompute=recompute)
        beside = build(kind, depth=6, recompute=recompute)
        beside.load_state_dict(inline.state_dict())
        beside.blocks.side_branch = True
        first, second = Recorded(inline, inputs_for(kind)), Recorded(beside, inputs_for(kind))
        for number in range(300):
            inputs = inputs_for(kind)
            noise = torch.randn(1 + number % 7, 1 << 20, device="cuda").sin_()
            expected = first(inputs)
            assert_same(second(inputs), expected)
            del noise
        eager = call(inline, inputs)
        assert_same(second.found, eager)


@pytest.mark.parametrize("recompute", [False, True])
def test_memory_is_that_of_two_layers_more_and_does_not_grow(recompute: bool) -> None:
    inputs, peaks = inputs_for("self"), []
    rows = SEQUENCES * TOKENS * WIDTH * 2
    for side in (False, True):
        module = build("self", depth=8, recompute=recompute)
        module.blocks.side_branch = side
        for _ in range(5):
            call(module, inputs)
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(100):
            call(module, inputs)
        torch.cuda.synchronize()
        assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
        peaks.append(torch.cuda.max_memory_allocated() - before[0])
        del module
        gc.collect()
    # Hidden layer and its gradient, of q, k and v, of the two streams: 13 widths at most, for the layer on the second
    # stream and for the one before it.
    assert peaks[1] - peaks[0] <= 2 * 13 * rows


def test_an_error_leaves_a_device_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = build("self"), inputs_for("self")
    inline = call(module, inputs)
    module.blocks.side_branch = True
    several, calls = ops.weight_gradients, []

    def fails_second(pairs: Any) -> Any:
        calls.append(len(pairs))
        if len(calls) == 2:
            raise ValueError("this computation fails")
        return several(pairs)

    monkeypatch.setattr(ops, "weight_gradients", fails_second)
    with pytest.raises(ValueError, match="this computation fails"):
        call(module, inputs)
    assert_same(call(module, inputs), inline)
    calls.clear()
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(ValueError, match="this computation fails"), torch.cuda.graph(graph):
        call(module, inputs)
    assert_same(call(module, inputs), inline)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_on_a_device_that_is_not_the_current_one() -> None:
    module, inputs = build("self"), inputs_for("self")
    inline = {name: value.to("cuda:1") for name, value in call(module, inputs).items()}
    module.to("cuda:1").blocks.side_branch = True
    assert_same(call(module, [each.to("cuda:1") for each in inputs]), inline)
