"""Fused stacks against the same blocks one by one: numbers, gradients, and what they keep."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastamr
from fastamr import native
from fastamr.nn import TransformerBlock, TransformerStack
from fastamr.nn.stacks.working_weights import register_working_copy
from fastamr.testing import relative_error

from .stack_cases import DEPTH, HEADS, WIDTH, Stack, inputs_for, needs_extension, run, worst

ATTENTIONS = ["auto", "reference", "sdpa", "cpp"]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_equals_plain_blocks_in_float64(kind: str, attention: str) -> None:
    if attention == "cpp" and native.why_not("cpu") is not None:
        pytest.skip("no CPU extension")
    module, inputs = Stack(kind, attention=attention).double(), inputs_for(kind)
    assert module.blocks.path(*inputs, norm=module.norm) in ("fused", "reference")
    assert worst(run(module, inputs, "fused"), run(module, inputs, "reference")) < 1e-12


@pytest.mark.parametrize("rows", ["reference", "cpp"])
@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("self", {"sequences": 1, "tokens": 1}),
        ("self", {"sequences": 2, "tokens": 75}),
        ("cross", {"sequences": 1, "tokens": 1, "queries": 1}),
        ("cross", {"sequences": 1, "queries": 9}),
        ("cross", {"sequences": 4, "shared": False}),
        ("cross", {"sequences": 2, "tokens": 75, "queries": 125}),
    ],
)
def test_sizes(kind: str, sizes: dict[str, Any], rows: str) -> None:
    """One sequence, one token, queries of their own; the decoder's shared projection and joint keys are exact."""
    if rows == "cpp" and native.why_not("cpu") is not None:
        pytest.skip("no CPU extension")
    module, inputs = Stack(kind).double(), inputs_for(kind, **sizes)
    with fastamr.backend(linear_gelu=rows, linear_residual_norm=rows, row_norm=rows):
        found = run(module, inputs, "fused")
    assert worst(found, run(module, inputs, "reference")) < 1e-12


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_float32_is_as_exact_as_plain_blocks(kind: str) -> None:
    module = Stack(kind, attention="reference")
    inputs = [each.float() for each in inputs_for(kind, tokens=20)]
    truth = run(copy.deepcopy(module).double(), [each.double() for each in inputs], "reference")
    assert worst(run(module, inputs, "fused"), truth) < max(
        3 * worst(run(module, inputs, "reference"), truth), 2e-6
    )


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_autocast_by_norms(kind: str, attention: str) -> None:
    if attention == "cpp" and native.why_not("cpu") is not None:
        pytest.skip("no CPU extension")
    module = Stack(kind, attention=attention)
    inputs = [each.float() for each in inputs_for(kind, sequences=4, tokens=30, queries=20)]
    truth = run(copy.deepcopy(module).double(), [each.double() for each in inputs], "reference")

    def under_autocast(*leaves: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return module(*leaves)

    found = run(module, inputs, "fused", under_autocast)
    peer = run(module, inputs, "reference", under_autocast)
    assert found["out"].dtype == torch.bfloat16
    for name, value in truth.items():
        assert found[name].dtype in (torch.float32, torch.bfloat16)
        if name != "out":
            assert found[name].dtype == torch.float32
        allowed = max(3 * relative_error(peer[name], value), 0.02)
        assert relative_error(found[name], value) < allowed, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_recompute_is_equal_to_the_bit(kind: str, dtype: torch.dtype) -> None:
    module, inputs = Stack(kind).to(dtype), [each.to(dtype) for each in inputs_for(kind, tokens=20)]
    kept = run(module, inputs, "fused")
    module.blocks.recompute = True
    again = run(module, inputs, "fused")
    assert all(torch.equal(kept[name], again[name]) for name in kept)


@pytest.mark.parametrize("recompute", [False, True])
def test_recompute_keeps_less(recompute: bool) -> None:
    """Without the hidden layer and its slope, two tensors of four widths a block, less than half is saved."""
    module, x = Stack("self", width=64, attention="reference"), torch.randn(4, 30, 64)
    module.blocks.recompute = recompute
    saved: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        saved[value.data_ptr()] = value.numel()
        return value

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value),
        fastamr.backend(transformer_stack="fused"),
    ):
        module(x)
    rows = sum(saved.values()) - sum(p.numel() for n, p in module.named_parameters() if p.ndim == 2)
    # A block: qkv 3, attention 1, two streams and two normed rows 4, hidden 8; the last stream; statistics.
    expected = 8 if recompute else 16
    assert expected < rows / (120 * 64 * DEPTH) - 2 / DEPTH < expected + 0.2


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_gradients_add_up_and_frozen_parameters_get_none(kind: str) -> None:
    module, inputs = Stack(kind).double(), inputs_for(kind)
    once = {
        name: value if value is None else value.clone()
        for name, value in run(module, inputs, "fused").items()
    }
    with fastamr.backend(transformer_stack="fused"):
        for _ in range(2):
            out = module(*inputs)
            (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)).sum().backward()
    for name, parameter in module.named_parameters():
        assert relative_error(parameter.grad, 3 * once[name]) < 1e-12
    frozen = ["blocks.0.norm1.weight", "blocks.1.mlp.fc1.weight", "blocks.2.attn.proj.bias", "norm.bias"]
    module.zero_grad()
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    found = run(module, inputs, "fused")
    assert all(found[name] is None for name in frozen)
    assert all(torch.equal(found[name], once[name]) for name in once if name not in frozen)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_inputs_without_gradient_and_nothing_to_differentiate(kind: str) -> None:
    module, inputs = Stack(kind).double(), inputs_for(kind)
    full = run(module, inputs, "fused")
    module.zero_grad()
    with fastamr.backend(transformer_stack="fused"):
        out = module(*inputs)
        (out * torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape)).sum().backward()
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter.grad, full[name])
        module.requires_grad_(False)
        plain = module(*inputs)
        assert not plain.requires_grad
        assert relative_error(plain, out.detach()) < 1e-14
        with torch.inference_mode():
            assert relative_error(module(*inputs), out.detach()) < 1e-14


def test_stream_and_norm_are_both_differentiable() -> None:
    module, (x,) = Stack("self").double(), inputs_for("self")
    results = []
    for backend in ("fused", "reference"):
        for parts in (slice(0, 2), slice(0, 1), slice(1, 2)):
            leaf = x.clone().requires_grad_()
            module.zero_grad()
            with fastamr.backend(transformer_stack=backend):
                both = module.blocks.with_stream(leaf, module.norm)
            sum((each**2).sum() * (i + 1) for i, each in enumerate(both[parts])).backward()
            gradients = [leaf.grad, *(p.grad for p in module.parameters())]
            results.append([*both, *gradients])
    for fused, plain in zip(results[:3], results[3:], strict=True):
        for mine, theirs in zip(fused, plain, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_same_names_as_a_module_list() -> None:
    stack, plain = Stack("self").blocks, nn.ModuleList(TransformerBlock(WIDTH, HEADS) for _ in range(DEPTH))
    assert list(stack.state_dict()) == list(plain.state_dict())
    stack.load_state_dict(plain.state_dict())
    twin = copy.deepcopy(stack)
    assert isinstance(twin, TransformerStack)
    assert torch.equal(twin[2].mlp.fc1.weight, plain[2].mlp.fc1.weight)


@needs_extension
def test_backward_twice_needs_and_respects_retain_graph() -> None:
    for attention in ("cpp", "sdpa"):
        module, (x,) = Stack("self", attention=attention).double(), inputs_for("self")
        leaf = x.requires_grad_()
        out = module(leaf).square().sum()
        first = torch.autograd.grad(out, leaf, retain_graph=True)[0]
        assert torch.equal(torch.autograd.grad(out, leaf)[0], first)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            torch.autograd.grad(out, leaf)


@needs_extension
def test_a_weight_changed_before_the_backward_is_noticed() -> None:
    module, (x,) = Stack("self").double(), inputs_for("self")
    out = module(x).square().sum()
    with torch.no_grad():
        module.blocks[1].mlp.fc1.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


@needs_extension
def test_working_copies_are_what_it_computes_with() -> None:
    module, x = Stack("self"), torch.randn(2, 5, WIDTH)
    weight = module.blocks[0].mlp.fc1.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = module(x)
        register_working_copy(weight, torch.zeros_like(weight, dtype=torch.bfloat16))
        changed = module(x)
        with torch.no_grad():
            weight.mul_(1)
        restored = module(x)
    assert not torch.equal(before, changed)
    assert torch.equal(before, restored)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_on_the_kernels(kind: str) -> None:
    """The Triton forms of the products, interpreted where there is no GPU."""
    pytest.importorskip("triton")
    module, inputs = Stack(kind, depth=2), [each.float() for each in inputs_for(kind)]
    truth = run(copy.deepcopy(module).double(), [each.double() for each in inputs], "reference")
    with fastamr.backend("triton"):
        assert module.blocks.path(*inputs, norm=module.norm) == "fused"
        assert worst(run(module, inputs, "fused"), truth) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_on_a_gpu_by_norms(kind: str, dtype: torch.dtype) -> None:
    """At the paper's sizes, against plain blocks under the same autocast."""
    module = Stack(kind, width=256).cuda()
    for block in module.blocks:
        block.attn.heads, block.attn.size = 8, 32
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    inputs = [torch.randn(64, 75, 256, device="cuda")]
    if kind == "cross":
        inputs.insert(0, torch.randn(1, 125, 256, device="cuda"))
    truth = run(copy.deepcopy(module).double(), [each.double() for each in inputs], "reference")

    def under_autocast(*leaves: Tensor) -> Tensor:
        with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
            return module(*leaves)

    peer = worst(run(module, inputs, "reference", under_autocast), truth)
    assert worst(run(module, inputs, "fused", under_autocast), truth) < max(3 * peer, 1e-5)
