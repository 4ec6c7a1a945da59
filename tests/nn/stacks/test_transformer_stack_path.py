"""When a stack runs fused and when block by block, and what it says where it cannot do what was asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fastamr
from fastamr.nn import TransformerBlock, TransformerStack

from .stack_cases import HEADS, WIDTH, Stack, inputs_for, needs_extension


@needs_extension
def test_empty_batch_takes_plain_blocks() -> None:
    module = Stack("self")
    assert module(torch.randn(0, 5, WIDTH)).shape == (0, 5, WIDTH)
    assert module.blocks.path(torch.randn(0, 5, WIDTH), norm=module.norm) == "reference"
    assert module.blocks.path(torch.randn(2, 5, WIDTH), norm=module.norm) == "fused"


def with_hook(module: Stack) -> None:
    module.blocks[1].attn.qkv.register_forward_hook(lambda *_: None)


def with_backward_hook(module: Stack) -> None:
    module.blocks[1].mlp.register_full_backward_hook(lambda *_: None)


def with_other_activation(module: Stack) -> None:
    module.blocks[0].mlp.act = nn.ReLU()


def with_tanh_gelu(module: Stack) -> None:
    module.blocks[0].mlp.act = nn.GELU("tanh")


def with_parametrization(module: Stack) -> None:
    nn.utils.parametrizations.weight_norm(module.blocks[0].mlp.fc1)


def without_bias(module: Stack) -> None:
    module.blocks[0].attn.proj.bias = None


def with_bare_norm(module: Stack) -> None:
    module.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)


def with_unlike_blocks(module: Stack) -> None:
    module.blocks[1] = TransformerBlock(WIDTH, HEADS * 2)


def with_materialised_attention(module: Stack) -> None:
    for block in module.blocks:
        block.attn.backend = "materialised"


def with_half_a_module(module: Stack) -> None:
    module.blocks[0].double()


ALTERATIONS = {
    with_hook: "a hook sits on a Linear",
    with_backward_hook: "a hook sits on a Mlp",
    with_other_activation: "holds a ReLU",
    with_tanh_gelu: "GELU is approximate",
    with_parametrization: "holds a Parametri",
    without_bias: "a Linear has no weight or no bias",
    with_bare_norm: "a LayerNorm has no weight or no bias",
    with_unlike_blocks: "the blocks differ",
    with_materialised_attention: "materialised attention belongs to plain blocks",
    with_half_a_module: "parameters of torch.float64 on cpu meet activations of torch.float32",
}


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_what_the_fused_form_lacks_runs_plain_and_raises_by_name(alter: Callable[[Stack], None]) -> None:
    module, x = Stack("self"), torch.randn(2, 5, WIDTH)
    alter(module)
    assert module.blocks.path(x, norm=module.norm) == "reference"
    module.blocks.backend = "fused"
    with pytest.raises(RuntimeError, match=f"'fused' cannot run transformer_stack: .*{ALTERATIONS[alter]}"):
        module(x)


@needs_extension
def test_hooks_are_called() -> None:
    module, x = Stack("self"), torch.randn(2, 5, WIDTH)
    assert module.blocks.path(x, norm=module.norm) == "fused"
    seen: list[int] = []
    handle = module.blocks[1].attn.qkv.register_forward_hook(lambda *_: seen.append(1))
    module(x)
    handle.remove()
    module(x)
    assert seen == [1]
    for handle in (
        nn.modules.module.register_module_forward_hook(lambda *_: None),
        nn.modules.module.register_module_full_backward_hook(lambda *_: None),
    ):
        assert module.blocks.path(x, norm=module.norm) == "reference"
        handle.remove()
    assert module.blocks.path(x, norm=module.norm) == "fused"


@needs_extension
def test_choice() -> None:
    module, x = Stack("self"), torch.randn(2, 5, WIDTH)

    def path() -> str:
        return module.blocks.path(x, norm=module.norm)

    assert path() == "fused"
    with fastamr.backend("reference"):
        assert path() == "reference"
    with fastamr.backend(transformer_stack="reference"):
        assert path() == "reference"
    with fastamr.backend(visible_attention="materialised"):
        assert path() == "reference"
    with fastamr.backend(linear_gelu="reference"):
        assert path() == "reference", "no compiled products: plain blocks are faster"
        module.blocks.backend = "fused"
        assert path() == "fused"
    module.blocks.backend = "reference"
    with fastamr.backend(transformer_stack="fused"):
        assert path() == "reference", "what the stack was told goes before the user's general choice"
    with pytest.raises(ValueError, match="blocks"):
        TransformerStack([], backend="triton")


def test_second_derivatives_and_transforms() -> None:
    module, (x,) = Stack("self", depth=1).double(), inputs_for("self")
    leaf = x.requires_grad_()
    with fastamr.backend(transformer_stack="fused"):
        out = module(leaf).square().sum()
        with pytest.raises(RuntimeError, match=r"no second derivative.*transformer_stack='reference'"):
            torch.autograd.grad(out, leaf, create_graph=True)
    with fastamr.backend(visible_attention="materialised"):
        (first,) = torch.autograd.grad(module(leaf).square().sum(), leaf, create_graph=True)
        expected = torch.autograd.grad(first.square().sum(), leaf)[0]
        assert torch.isfinite(expected).all()
        found = torch.func.grad(lambda y: module(y).square().sum())(x.detach())
        torch.testing.assert_close(found, first.detach())


def test_compiles_without_a_break() -> None:
    """Tracing takes the plain blocks, whose operations the compiler sees."""
    torch.compiler.reset()
    module, x = Stack("self", depth=1), torch.randn(2, 5, WIDTH, requires_grad=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    compiled(x).sum().backward()
    assert x.grad is not None
