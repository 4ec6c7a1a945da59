"""SkeletonMAE (Wu et al. 2022, arXiv 2209.02399): the baseline, a plain masked autoencoder on MAMP's backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..nn import TransformerBlock, WeightedReconstructionLoss, initialize, table
from ..skeleton import SkeletonLayout
from .base import PretrainOutput, SkeletonModel
from .config import ModelConfig
from .encoder import SkeletonEncoder


@dataclass(frozen=True)
class SkeletonMAEConfig(ModelConfig):
    """Options of :class:`SkeletonMAEModel`: those of :class:`fastamr.models.ModelConfig` with its own target.

    Attributes:
        target: joint coordinates (paper).
        normalize: each patch by its own mean and unbiased variance (public code).
    """

    target: str = "joints"
    normalize: str = "patch"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.visible >= self.tokens:
            raise ValueError(
                f"mask_ratio={self.mask_ratio} hides none of {self.tokens} tokens, so that nothing is left to "
                "reconstruct: raise it, for example to 0.9"
            )


class FullDecoder(nn.Module):
    """Full self-attention over visible and mask tokens.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: SkeletonMAEConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.tokens = config.tokens
        self.embed = nn.Linear(config.width, width)
        self.mask_token = table(1, 1, width)
        self.time_embed = table(config.frames // config.patch_frames, 1, width)
        self.joint_embed = table(1, config.joints, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width, config.decoder_heads, mlp_ratio=config.mlp_ratio, backend=config.attention
            )
            for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.patch_frames * config.channels)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Predict all patches ``(S, N, l*C)`` from the visible tokens ``(S, K, D)`` listed by keep ``(S, K)``."""
        visible = self.embed(tokens)
        index = keep.long()[..., None].expand_as(visible)
        blank = self.mask_token.to(visible.dtype).expand(visible.shape[0], self.tokens, -1)
        x = blank.scatter(1, index, visible) + (self.time_embed + self.joint_embed).flatten(0, 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class SkeletonMAEModel(SkeletonModel):
    """Reconstruct the masked patches of joint coordinates with a decoder over all 750 tokens.

    The authors released no code; this is what later papers' tables call SkeletonMAE (8 + 5 blocks, 10,368,524
    parameters). ``attention="materialised"`` writes the attention matrices out as the public code does,
    ``attention="sdpa"`` is its strongest form. Only the visible tokens are embedded, which the public code does not
    spare itself.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of :class:`SkeletonMAEConfig`.
    """

    name = "skeleton_mae"
    Config = SkeletonMAEConfig
    config: SkeletonMAEConfig

    def __init__(self, layout: str | SkeletonLayout = "ntu25", frames: int = 120, **options: Any) -> None:
        super().__init__(layout, frames, **options)
        config = self.config
        self.encoder = SkeletonEncoder(config)
        self.decoder = FullDecoder(config)
        self.criterion = WeightedReconstructionLoss(
            config.patch_frames,
            target=config.target,
            stride=config.stride,
            normalize=config.normalize,
            eps=config.loss_eps,
        )
        self.apply(initialize)

    def reconstruct(self, clips: Tensor, keep: Tensor, valid: Tensor | None) -> PretrainOutput:
        """Predict all patches from the visible ones; the masked ones enter the loss."""
        prediction = self.decoder(self.encoder(clips, keep), keep)
        masked = torch.ones(prediction.shape[:2], dtype=torch.bool, device=clips.device)
        masked = masked.scatter(1, keep.long(), False)
        loss = self.criterion(prediction, clips, token_mask=masked, valid=valid)
        return PretrainOutput(loss, prediction, keep, None)

    def linear_rows(self, name: str) -> int:
        """Rows of a linear layer per sequence: visible tokens in the encoder, all tokens in the decoder."""
        visible = name.startswith("encoder.") or name == "decoder.embed"
        return self.config.visible if visible else self.config.tokens
