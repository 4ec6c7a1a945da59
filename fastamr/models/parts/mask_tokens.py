"""Decoders over all tokens: the visible ones at their positions, a learned mask token everywhere else."""

from __future__ import annotations

from torch import Tensor, nn

from ...nn import TransformerBlock, TransformerStack, WorkingLinear, learned_embedding
from .config import ModelConfig


class MaskTokenDecoder(nn.Module):
    """What such decoders begin with: a linear map of the visible tokens, the mask token and own positions.

    Args:
        config: the model's configuration.
    """

    no_decay = ("mask_token", "time_embed", "joint_embed")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.tokens = config.tokens
        self.embed = WorkingLinear(config.width, width)
        self.mask_token = learned_embedding(1, 1, width)
        self.time_embed = learned_embedding(config.frames // config.patch_frames, 1, width)
        self.joint_embed = learned_embedding(1, config.joints, width)

    def fill(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """All tokens ``(S, N, D)`` from the visible ones ``(S, K, D)`` listed by keep ``(S, K)``."""
        visible = self.embed(tokens)
        index = keep.long()[..., None].expand_as(visible)
        blank = self.mask_token.to(visible.dtype).expand(visible.shape[0], self.tokens, -1)
        return blank.scatter(1, index, visible) + (self.time_embed + self.joint_embed).flatten(0, 1)


def decoder_blocks(config: ModelConfig) -> TransformerStack:
    """``decoder_depth`` transformer blocks of the decoder's width."""
    blocks = (
        TransformerBlock(
            config.decoder_width,
            config.decoder_heads,
            mlp_ratio=config.mlp_ratio,
            backend=config.attention,
        )
        for _ in range(config.decoder_depth)
    )
    return TransformerStack(blocks, backend=config.blocks)


class FullDecoder(MaskTokenDecoder):
    """Full self-attention over visible and mask tokens; predicts every patch (SkeletonMAE, MAMP).

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = decoder_blocks(config)
        self.norm = nn.LayerNorm(config.decoder_width)
        self.head = WorkingLinear(config.decoder_width, config.patch_frames * config.channels)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Predict all patches ``(S, N, l*C)`` from the visible tokens ``(S, K, D)`` listed by keep ``(S, K)``."""
        return self.head(self.blocks(self.fill(tokens, keep), self.norm))
