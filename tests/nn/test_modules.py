"""The drop-in modules against the plain layers they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastamr.nn import (
    CrossAttentionBlock,
    MaskedPatchEmbed,
    MotionEntropyGuidance,
    TransformerBlock,
    VisibleAttention,
    WeightedReconstructionLoss,
    initialize,
)
from fastamr.testing import random_clips


def test_self_attention_equals_multihead_attention() -> None:
    """The packed projections are those of nn.MultiheadAttention in the same order."""
    mine, theirs = VisibleAttention(32, 4).double(), nn.MultiheadAttention(32, 4, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": mine.qkv.weight,
            "in_proj_bias": mine.qkv.bias,
            "out_proj.weight": mine.proj.weight,
            "out_proj.bias": mine.proj.bias,
        }
    )
    x = torch.randn(3, 7, 32, dtype=torch.float64)
    torch.testing.assert_close(mine(x), theirs(x, x, x)[0])


def test_cross_attention_equals_multihead_attention_and_shares_queries() -> None:
    mine, theirs = (
        VisibleAttention(32, 4, cross=True).double(),
        nn.MultiheadAttention(32, 4, batch_first=True).double(),
    )
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([mine.q.weight, mine.kv.weight]),
            "in_proj_bias": torch.cat([mine.q.bias, mine.kv.bias]),
            "out_proj.weight": mine.proj.weight,
            "out_proj.bias": mine.proj.bias,
        }
    )
    q, memory = torch.randn(3, 5, 32).double(), torch.randn(3, 7, 32).double()
    torch.testing.assert_close(mine(q, memory), theirs(q, memory, memory)[0])
    torch.testing.assert_close(mine(q[:1], memory), mine(q[:1].expand(3, -1, -1), memory))


@pytest.mark.parametrize("backend", ["sdpa", "materialised", "reference", "auto"])
def test_block_equals_torch_encoder_layer(backend: str) -> None:
    block = TransformerBlock(32, 4, backend=backend).double()
    layer = nn.TransformerEncoderLayer(32, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True).double()
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight",
        "self_attn.in_proj_bias": "attn.qkv.bias",
        "self_attn.out_proj.weight": "attn.proj.weight",
        "self_attn.out_proj.bias": "attn.proj.bias",
        "linear1.weight": "mlp.fc1.weight",
        "linear1.bias": "mlp.fc1.bias",
        "linear2.weight": "mlp.fc2.weight",
        "linear2.bias": "mlp.fc2.bias",
        "norm1.weight": "norm1.weight",
        "norm1.bias": "norm1.bias",
        "norm2.weight": "norm2.weight",
        "norm2.bias": "norm2.bias",
    }
    state = block.state_dict()
    assert set(names.values()) == set(state)
    layer.load_state_dict({theirs: state[mine] for theirs, mine in names.items()})
    x = torch.randn(2, 6, 32, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(block(x), layer(x))
    mine = torch.autograd.grad(block(x).square().sum(), x)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(layer(x).square().sum(), x)[0])


def test_cross_block_has_no_self_attention() -> None:
    """A query's output depends on no other query."""
    block = CrossAttentionBlock(16, 2)
    queries, memory = torch.randn(2, 5, 16), torch.randn(2, 3, 16)
    changed = queries.clone()
    changed[:, 1] += 1
    before, after = block(queries, memory), block(changed, memory)
    same = torch.tensor([0, 2, 3, 4])
    torch.testing.assert_close(before[:, same], after[:, same])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_masked_patch_embed_equals_embedding_then_gathering() -> None:
    embed = MaskedPatchEmbed(12, 5, 16, patch_frames=4)
    clips, keep = random_clips(2, 12, 5), torch.tensor([[0, 7, 14], [3, 4, 5]])
    patches = clips.unflatten(1, (3, 4)).transpose(2, 3).flatten(3)
    tokens = (embed.proj(patches) + embed.time_embed + embed.joint_embed).flatten(1, 2)
    torch.testing.assert_close(embed(clips), tokens)
    torch.testing.assert_close(embed(clips, keep), torch.stack([tokens[s, keep[s]] for s in range(2)]))


def test_guidance_and_loss_modules_pass_their_options_on() -> None:
    clips = random_clips(2, 12, 5)
    weak, strong = MotionEntropyGuidance((4,), 0.01)(clips), MotionEntropyGuidance((4,), 10.0)(clips)
    assert (strong < weak).all()
    prediction = torch.zeros(2, 15, 12)
    plain = WeightedReconstructionLoss(4, target="joints", normalize="none")(prediction, clips)
    torch.testing.assert_close(plain, clips.square().mean())
    weighted = WeightedReconstructionLoss(4, target="joints", normalize="none")(
        prediction, clips, guidance=weak
    )
    torch.testing.assert_close(weighted, (weak[..., None] * clips.square()).mean())


def test_initialize() -> None:
    layer = nn.Linear(64, 32)
    layer.apply(initialize)
    bound = (6 / 96) ** 0.5
    assert layer.bias.abs().sum() == 0
    assert layer.weight.abs().max() <= bound
    assert abs(layer.weight.std() - bound / 3**0.5) < 0.01


def test_errors() -> None:
    with pytest.raises(ValueError, match="heads=3 does not divide width=32"):
        VisibleAttention(32, 3)
    with pytest.raises(ValueError, match="did you mean 'sdpa'"):
        VisibleAttention(32, 4, backend="spda")
    with pytest.raises(ValueError, match="memory=None"):
        VisibleAttention(32, 4, cross=True)(torch.zeros(1, 2, 32))
    with pytest.raises(ValueError, match="patch_frames=5 does not divide frames=12"):
        MaskedPatchEmbed(12, 5, 16, patch_frames=5)
    with pytest.raises(ValueError, match="did you mean 'histogram'"):
        MotionEntropyGuidance(kind="histogramm")
    with pytest.raises(ValueError, match="did you mean 'patch'"):
        WeightedReconstructionLoss(4, normalize="patches")
