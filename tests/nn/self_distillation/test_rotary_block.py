from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from fastamr.nn.self_distillation.rotary_block import (
    RotaryAttention,
    RotaryBlock,
    SwiGLU,
    rotate,
    rotation_table,
    swiglu_hidden,
)


def test_rotation_is_a_turn_of_complex_numbers() -> None:
    table = rotation_table(5, 8, base=100.0).double()
    values = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    numbers = torch.complex(values[..., :4], values[..., 4:])
    angles = torch.arange(5, dtype=torch.float64)[:, None] * 100.0 ** -(
        torch.arange(4, dtype=torch.float64) / 4
    )
    turned = numbers * torch.polar(torch.ones_like(angles), angles)[None, :, None]
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(rotate(values, table), expected, rtol=1e-6, atol=1e-6)


def test_products_depend_on_the_distance_in_time_only() -> None:
    table = rotation_table(9, 16)
    query, key = torch.randn(2, 1, 1, 16).unbind(0)

    def product(first: int, second: int) -> torch.Tensor:
        one = rotate(query[None], table[:, first : first + 1])
        other = rotate(key[None], table[:, second : second + 1])
        return (one * other).sum()

    torch.testing.assert_close(product(1, 4), product(5, 8))
    assert not torch.isclose(product(1, 4), product(1, 5))


def test_attention_is_pytorchs_with_turned_queries_and_keys() -> None:
    attention = RotaryAttention(16, 2)
    x, table = torch.randn(3, 7, 16), rotation_table(7, 8)
    q, k, v = attention.qkv(x).unflatten(-1, (3, 2, 8)).unbind(2)
    q, k = rotate(q, table), rotate(k, table)
    parts = (part.transpose(1, 2) for part in (q, k, v))
    expected = attention.proj(functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, rotation=table), expected)
    still = rotation_table(1, 8).expand(-1, 7, -1)
    torch.testing.assert_close(attention(x), attention(x, rotation=still))
    with pytest.raises(ValueError, match="memory is given"):
        attention(x, x)


def test_tokens_that_are_not_known_are_attended_to_by_none() -> None:
    """As if the sequence had the others alone, at the times that they have."""
    block = RotaryBlock(16, 2).double()
    x, table = torch.randn(3, 7, 16, dtype=torch.float64), rotation_table(7, 8)
    known = torch.tensor([[1, 1, 0, 1, 0, 1, 1]]).bool().expand(3, -1)
    there = known[0].nonzero()[:, 0]
    found = block(x, table, known)[:, there]
    torch.testing.assert_close(found, block(x[:, there], table[:, there]), rtol=1e-12, atol=1e-12)


def test_swiglu_has_the_weights_of_a_plain_mlp() -> None:
    assert swiglu_hidden(256, 4.0) == 688
    layer = SwiGLU(4, 6)
    x = torch.randn(2, 4)
    gate, value = layer.fc1(x).split(6, dim=-1)
    torch.testing.assert_close(layer(x), layer.fc2(gate * gate.sigmoid() * value))


def test_block_is_pre_norm_and_residual() -> None:
    block = RotaryBlock(16, 2)
    x, table = torch.randn(3, 7, 16), rotation_table(7, 8)
    middle = x + block.attn(functional.layer_norm(x, (16,)), rotation=table)
    torch.testing.assert_close(block(x, table), middle + block.mlp(functional.layer_norm(middle, (16,))))
    for layer in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(block(x, table), x)


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(ValueError, match="heads have 7 features, expected an even number"):
        rotation_table(3, 7)
