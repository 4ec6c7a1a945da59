"""SkeletonMAE (Wu et al. 2022, arXiv 2209.02399): the baseline, a plain masked autoencoder on MAMP's backbone."""

from __future__ import annotations

from dataclasses import dataclass

from .masked_autoencoder import MaskedAutoencoder, MaskedAutoencoderConfig


@dataclass(frozen=True)
class SkeletonMAEConfig(MaskedAutoencoderConfig):
    """Options of :class:`SkeletonMAEModel`: those of :class:`fastamr.models.ModelConfig` with its own target.

    Attributes:
        target: joint coordinates (paper).
        normalize: each patch by its own mean and unbiased variance (public code of MAMP).
    """

    target: str = "joints"


class SkeletonMAEModel(MaskedAutoencoder):
    """Reconstruct the masked patches of joint coordinates with a decoder over all 750 tokens.

    The authors released no code; this is what later papers' tables call SkeletonMAE (8 + 5 blocks, 10,368,524
    parameters) and what MAMP's public code has as its MAE variant.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of :class:`SkeletonMAEConfig`.
    """

    name = "skeleton_mae"
    released_module = "model_mae"
    Config = SkeletonMAEConfig
    config: SkeletonMAEConfig
