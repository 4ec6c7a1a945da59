"""Drop-in modules built on :mod:`fastamr.ops`; usable in any model of skeleton sequences."""

from .feature_prediction_loss import FeaturePredictionLoss, describe_features
from .initialization import initialize, table
from .masked_patch_gather import MaskedPatchEmbed
from .motion_entropy import MotionEntropyGuidance
from .transformer_block import CrossAttentionBlock, Mlp, TransformerBlock
from .visible_attention import VisibleAttention
from .weighted_reconstruction_loss import WeightedReconstructionLoss

__all__ = [
    "CrossAttentionBlock",
    "FeaturePredictionLoss",
    "MaskedPatchEmbed",
    "Mlp",
    "MotionEntropyGuidance",
    "TransformerBlock",
    "VisibleAttention",
    "WeightedReconstructionLoss",
    "describe_features",
    "initialize",
    "table",
]
