"""The encoder that all masked models share: a transformer over the visible tokens."""

from __future__ import annotations

from torch import Tensor, nn

from ...nn import MaskedPatchEmbed, TransformerBlock, TransformerStack
from .config import ModelConfig


class SkeletonEncoder(nn.Module):
    """Patch embedding with positions, pre-norm transformer blocks, final LayerNorm (MAMP, AMR).

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed = MaskedPatchEmbed(
            config.frames,
            config.joints,
            config.width,
            patch_frames=config.patch_frames,
            channels=config.channels,
        )
        blocks = (
            TransformerBlock(config.width, config.heads, mlp_ratio=config.mlp_ratio, backend=config.attention)
            for _ in range(config.depth)
        )
        self.blocks = TransformerStack(blocks, backend=config.blocks)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, clips: Tensor, keep: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        """Encode the listed tokens ``(S, K, D)``, or all of them ``(S, N, D)``.

        Tokens that are not ``known (S, K)`` are attended to by none; what becomes of them has no meaning.
        """
        return self.blocks(self.embed(clips, keep), self.norm, known)
