"""A stack with its norm, inputs for it, and its output with every gradient, for the tests of stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastamr
from fastamr.nn import CrossAttentionBlock, CrossAttentionStack, TransformerBlock, TransformerStack

HEADS, SIZE, DEPTH = 2, 16, 3
WIDTH = HEADS * SIZE

needs_extension = pytest.mark.extension


class Stack(nn.Module):
    """A stack with its norm, as the models hold them."""

    def __init__(self, kind: str, depth: int = DEPTH, attention: str = "auto", width: int = WIDTH) -> None:
        super().__init__()
        block, stack = {
            "self": (TransformerBlock, TransformerStack),
            "cross": (CrossAttentionBlock, CrossAttentionStack),
        }[kind]
        self.blocks = stack(block(width, HEADS, backend=attention) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.blocks(*inputs, self.norm)


def inputs_for(
    kind: str, sequences: int = 3, tokens: int = 7, queries: int = 5, shared: bool = True
) -> list[Tensor]:
    memory = torch.randn(sequences, tokens, WIDTH, dtype=torch.float64)
    if kind == "self":
        return [memory]
    return [torch.randn(1 if shared else sequences, queries, WIDTH, dtype=torch.float64), memory]


def run(
    module: nn.Module, inputs: list[Tensor], backend: str, function: Callable[..., Tensor] | None = None
) -> dict[str, Any]:
    """Output and every gradient, by name, of a weighted sum of the output."""
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    module.zero_grad()
    with fastamr.backend(transformer_stack=backend):
        out = (function or module)(*leaves)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view(out.shape)
    (out.double() * weights).sum().backward()
    found: dict[str, Any] = {"out": out.detach(), **{f"input{i}": leaf.grad for i, leaf in enumerate(leaves)}}
    return found | {name: parameter.grad for name, parameter in module.named_parameters()}


def worst(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Largest relative error; what is zero in truth, as gradients through the softmax of one key, is only small."""
    assert found.keys() == expected.keys()
    assert all((found[name] is None) == (expected[name] is None) for name in found)
    known = {name: value.double() for name, value in expected.items() if value is not None}
    least = 1e-3 * max(value.norm() for value in known.values())
    return max(
        float((found[name].double() - value).norm() / value.norm().clamp(min=least))
        for name, value in known.items()
    )
