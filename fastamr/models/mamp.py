"""MAMP, Masked Motion Prediction (Mao et al., ICCV 2023, arXiv 2308.07092)."""

from __future__ import annotations

from dataclasses import dataclass

from .masked_autoencoder import MaskedAutoencoder, MaskedAutoencoderConfig


@dataclass(frozen=True)
class MAMPConfig(MaskedAutoencoderConfig):
    """Options of :class:`MAMPModel`: those of :class:`fastamr.models.ModelConfig` with its own defaults.

    Attributes:
        target: motion (paper).
        normalize: each patch by its own mean and unbiased variance (public code).
        masking: motion-aware (paper).
        visible_rounding: down, as in the public code: 74 of 750 tokens.
    """

    target: str = "motion"
    masking: str = "motion"
    visible_rounding: str = "down"


class MAMPModel(MaskedAutoencoder):
    """Predict the motion of the masked patches, hiding the moving ones more often.

    8 + 5 blocks, 10,368,524 parameters; the NTU-60 scripts of the public code use ``decoder_depth=3``.

    Args:
        layout: joints of the skeleton, by name or as a :class:`fastamr.SkeletonLayout`.
        frames: T, frames of a clip.
        options: any other field of :class:`MAMPConfig`.
    """

    name = "mamp"
    released_module = "model_mamp"
    Config = MAMPConfig
    config: MAMPConfig
