"""Decoders over all tokens: the visible ones at their positions, a learned mask token everywhere else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...nn import TransformerBlock, TransformerStack, WorkingLinear, learned_embedding
from .config import ModelConfig
from .presence import over_times, present_index


class MaskTokenDecoder(nn.Module):
    """What such decoders begin with: a linear map of the visible tokens, the mask token and own positions.

    Args:
        config: the model's configuration.
    """

    no_decay = ("mask_token", "time_embed", "joint_embed")
    present: Tensor | None
    place: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder_width
        present = present_index(config)
        self.tokens, self.joints, self.times = config.present_tokens, config.joints, config.time_patches
        self.register_buffer("present", present, persistent=False)
        self.register_buffer(
            "place", None if present is None else _places(present, config.joints), persistent=False
        )
        self.embed = WorkingLinear(config.width, width)
        self.mask_token = learned_embedding(1, 1, width)
        self.time_embed = learned_embedding(config.frames // config.patch_frames, 1, width)
        self.joint_embed = learned_embedding(1, config.joints, width)

    def among_present(self, keep: Tensor) -> Tensor:
        """Return the numbers of tokens ``(S, K)`` int64 among those of the joints that are present."""
        tokens = keep.long()
        if self.present is None or self.place is None:
            return tokens
        times = tokens.div(self.joints, rounding_mode="floor")
        return times * len(self.present) + self.place[tokens - times * self.joints]

    def fill(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """All tokens ``(S, N', D)`` that are present from the visible ones ``(S, K, D)`` listed by keep ``(S, K)``."""
        visible = self.embed(tokens)
        index = self.among_present(keep)[..., None].expand_as(visible)
        blank = self.mask_token.to(visible.dtype).expand(visible.shape[0], self.tokens, -1)
        joints = self.joint_embed if self.present is None else self.joint_embed.index_select(1, self.present)
        return blank.scatter(1, index, visible) + (self.time_embed + joints).flatten(0, 1)


def _places(present: Tensor, joints: int) -> Tensor:
    """Return for each of the layout's joints its place among those that are present; 0 for the others."""
    return torch.zeros(joints, dtype=torch.int64).scatter(0, present, torch.arange(len(present)))


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

    def forward(self, tokens: Tensor, keep: Tensor, seen: Tensor | None = None) -> Tensor:
        """Predict all patches ``(S, N', l*C)`` from the visible tokens ``(S, K, D)`` listed by keep ``(S, K)``.

        Args:
            tokens: the encoded visible tokens.
            keep: which they are.
            seen: ``(S, V')`` bool, which of the joints that are present a sequence has; None = all.
        """
        known = None if seen is None else over_times(seen, self.times)
        return self.head(self.blocks(self.fill(tokens, keep), self.norm, known))
