"""Drop path inside the fused stack: the same branches, values and gradients as block by block, on every back end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr import ops
from fastamr.nn import DropPath, TransformerBlock, drop_path_seed
from fastamr.ops.common.backends import watched
from fastamr.testing import relative_error

from .late_streams import LateStreams, delayed
from .stack_cases import DEPTH, Stack, inputs_for, needs_extension, run, worst


def dropping(*rates: float, depth: int = DEPTH) -> Stack:
    module = Stack("self", depth=depth)
    for block, rate in zip(module.blocks, rates, strict=True):
        block.drop_path.rate = rate  # type: ignore[union-attr]
    return module


def seeded(module: Stack, number: int = 0, first: int | None = None) -> Callable[..., Tensor]:
    values = [17, number] if first is None else [17, number, first]

    def function(*inputs: Tensor) -> Tensor:
        with drop_path_seed(torch.tensor(values)):
            return module(*inputs)

    return function


def drawn(rates: list[float], sequences: int, number: int = 0) -> Tensor:
    each = [rate for rate in rates for _ in range(2)]
    return ops.drop_path_scales(torch.tensor([17, number]), each, sequences)


@pytest.mark.parametrize("rows", ["reference", pytest.param("cpp", marks=needs_extension)])
@pytest.mark.parametrize("rates", [(0.0, 0.0, 0.0), (0.0, 0.1, 0.5), (0.5, 0.5, 0.5), (0.1, 0.0, 0.99)])
@pytest.mark.parametrize(("sequences", "tokens"), [(1, 1), (7, 5), (16, 3), (2, 77)])
def test_equals_plain_blocks_in_float64(
    sequences: int, tokens: int, rates: tuple[float, ...], rows: str
) -> None:
    module = dropping(*rates).double()
    inputs = inputs_for("self", sequences=sequences, tokens=tokens)
    plain = run(module, inputs, "reference", seeded(module))
    with fastamr.backend(linear_residual_norm=rows, row_norm=rows, linear_gelu=rows):
        found = run(module, inputs, "fused", seeded(module))
    assert worst(found, plain) < 1e-12


def by_hand(module: Stack, x: Tensor, scales: Tensor) -> Tensor:
    """The blocks written out, without DropPath."""
    for index, block in enumerate(module.blocks):
        assert isinstance(block, TransformerBlock)
        attention, mlp = (scales[2 * index + half].to(x.dtype)[:, None, None] for half in range(2))
        x = x + attention * block.attn(block.norm1(x))
        x = x + mlp * block.mlp(block.norm2(x))
    return module.norm(x)


@pytest.mark.parametrize("recompute", [False, True])
def test_equals_the_blocks_written_out(recompute: bool) -> None:
    """With a sequence that loses both branches of a block, and one that loses all of them."""
    rates, sequences = [0.3, 0.6, 0.8], 24
    module, inputs = dropping(*rates).double(), inputs_for("self", sequences=sequences)
    module.blocks.recompute = recompute
    scales = drawn(rates, sequences)
    lost = (scales == 0).view(DEPTH, 2, sequences)
    assert lost.all(1).any(), "both branches of a block"
    lone = dropping(1 - 1e-12, 1 - 1e-12, 1 - 1e-12).double()
    x = inputs[0]
    with fastamr.backend(transformer_stack="fused"):
        assert torch.equal(lone.blocks.with_stream(x, lone.norm)[0], x), (
            "nothing is left but the residual stream"
        )
    truth = run(module, inputs, "reference", lambda value: by_hand(module, value, scales))
    assert worst(run(module, inputs, "fused", seeded(module)), truth) < 1e-12
    assert worst(run(module, inputs, "reference", seeded(module)), truth) < 1e-12


def test_a_sequence_that_loses_everything_gives_the_weights_no_gradient() -> None:
    module, inputs = dropping(*[1 - 1e-12] * DEPTH).double(), inputs_for("self")
    found = run(module, inputs, "fused")
    assert found["input0"].any()
    for name, gradient in found.items():
        if ".attn." in name or ".mlp." in name or ".norm" in name:
            assert not gradient.any(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounded_dtypes_are_as_exact_as_plain_blocks(dtype: torch.dtype) -> None:
    module = dropping(0.1, 0.3, 0.5)
    inputs = [each.float() for each in inputs_for("self", sequences=12, tokens=20)]
    exact = copy.deepcopy(module).double()
    truth = run(exact, [each.double() for each in inputs], "reference", seeded(exact))

    def cast(*leaves: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return seeded(module)(*leaves)

    found, peer = run(module, inputs, "fused", cast), run(module, inputs, "reference", cast)
    assert found["out"].dtype == dtype
    for name, value in truth.items():
        allowed = max(3 * relative_error(peer[name], value), 0.02 if dtype == torch.bfloat16 else 2e-6)
        assert relative_error(found[name], value) < allowed, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_recompute_and_the_side_branch_keep_the_bits(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = dropping(0.2, 0.4, 0.6).to(dtype)
    inputs = [each.to(dtype) for each in inputs_for("self", sequences=9)]
    first = run(module, inputs, "fused", seeded(module))
    module.blocks.recompute = True
    again = run(module, inputs, "fused", seeded(module))
    module.blocks.side_branch = True
    delayed(LateStreams(), ops, monkeypatch)
    beside = run(module, inputs, "fused", seeded(module))
    for name, value in first.items():
        assert torch.equal(again[name], value)
        assert torch.equal(beside[name], value)


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_off_costs_nothing_and_gives_the_same_bits(backend: str) -> None:
    """Rate 0, or evaluation at any rate: no draw, no scale, the bits of a stack that never had one."""
    never, inputs = Stack("self"), [each.float() for each in inputs_for("self")]
    idle = dropping(0.0, 0.0, 0.0)
    silent = dropping(0.5, 0.5, 0.5).eval()
    for other in (idle, silent):
        other.load_state_dict(never.state_dict())
    expected, state = run(never, inputs, backend), torch.get_rng_state()
    for other in (idle, silent):
        with watched() as seen:
            found = run(other, inputs, backend, seeded(other))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert not [op for op, *_ in seen if op == "drop_path_scales"]
    assert torch.equal(torch.get_rng_state(), state)


@needs_extension
def test_dispatch_says_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the record of choices and by the calls: two scaled products for each block that drops something."""
    module, (x,) = dropping(0.0, 0.2, 0.4), [each.float() for each in inputs_for("self")]
    scaled: list[bool] = []
    forward = ops.linear_residual_norm

    def noted(*arguments: Any, scale: Tensor | None = None) -> Any:
        scaled.append(scale is not None)
        return forward(*arguments, scale=scale)

    monkeypatch.setattr(ops, "linear_residual_norm", noted)
    with watched() as seen:
        module(x)
    (problem,) = [problem for op, problem, _ in seen if op == "transformer_stack"]
    assert problem.refusals == ()
    assert module.blocks.path(x, norm=module.norm) == "fused"
    assert module.blocks.explain(x, norm=module.norm)[0].faster == {}
    assert scaled == [False, False, True, True, True, True]
    assert [op for op, *_ in seen].count("drop_path_scales") == 1


def test_the_mean_over_seeds_is_no_drop() -> None:
    """One block whose MLP's branch alone reaches the end linearly: its mean is what evaluation computes."""
    module, x = dropping(0.3, depth=1).double(), inputs_for("self", sequences=64, tokens=2)[0]
    torch.nn.init.zeros_(module.blocks[0].attn.proj.weight)  # type: ignore[union-attr]
    torch.nn.init.zeros_(module.blocks[0].attn.proj.bias)  # type: ignore[union-attr]
    x = x[:1].expand(64, -1, -1).contiguous()
    with torch.no_grad(), fastamr.backend(transformer_stack="fused"):
        total = torch.zeros_like(x[0])
        for number in range(200):
            with drop_path_seed(torch.tensor([17, number])):
                total += module.blocks.with_stream(x, module.norm)[0].mean(0)
        expected = module.eval().blocks.with_stream(x, module.norm)[0][0]
    share = ((total / 200 - x[0]) / (expected - x[0])).mean()
    assert share == pytest.approx(1, abs=4 * (0.3 / 0.7 / (64 * 200)) ** 0.5)


def test_seeds() -> None:
    module, (x,) = dropping(0.5, 0.5, 0.5), [each.float() for each in inputs_for("self", sequences=12)]
    with fastamr.backend(transformer_stack="fused"):
        first = seeded(module)(x)
        assert torch.equal(seeded(module)(x), first)
        assert not torch.equal(seeded(module, number=1)(x), first)
        parts = [seeded(module, first=place)(x[place : place + 4]) for place in (0, 4, 8)]
        torch.testing.assert_close(torch.cat(parts), first, rtol=1e-5, atol=1e-5)
        torch.manual_seed(4)
        own = module(x)
        assert not torch.equal(module(x), own)
        torch.manual_seed(4)
        assert torch.equal(module(x), own)


def test_draws_inside_one_seed_differ_and_repeat() -> None:
    """Two stacks under one seed, as of a model with two encoders, and DropPath modules of other blocks."""
    module, layer = dropping(0.5, 0.5, 0.5), DropPath(0.5)
    x, ones = torch.randn(32, 3, 32), torch.ones(64, 2)

    def draw() -> list[Tensor]:
        with drop_path_seed(torch.tensor([17, 0])):
            return [module(x), module(x), layer(ones), layer(ones)]

    first, second = draw(), draw()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[2], first[3])
    assert set(first[2].unique().tolist()) == {0.0, 2.0}
    torch.manual_seed(0)
    before = layer(ones)
    torch.manual_seed(0)
    assert torch.equal(layer(ones), before), "outside, PyTorch's generator draws"
