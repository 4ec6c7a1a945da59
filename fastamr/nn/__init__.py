"""Drop-in modules built on :mod:`fastamr.ops`; usable in any model of skeleton sequences."""

from .barlow_twins import BarlowProjector, BarlowTwinsLoss
from .drop_path import DropPath
from .feature_alignment import FeatureAlignment
from .feature_prediction_loss import FeaturePredictionLoss, describe_features
from .initialization import initialize, table
from .masked_patch_gather import MaskedPatchEmbed
from .motion_entropy import MotionEntropyGuidance
from .st_gcn import STGCN
from .transformer_block import CrossAttentionBlock, Mlp, TransformerBlock
from .transformer_stack import CrossAttentionStack, TransformerStack
from .visible_attention import VisibleAttention
from .weighted_reconstruction_loss import WeightedReconstructionLoss

__all__ = [
    "STGCN",
    "BarlowProjector",
    "BarlowTwinsLoss",
    "CrossAttentionBlock",
    "CrossAttentionStack",
    "DropPath",
    "FeatureAlignment",
    "FeaturePredictionLoss",
    "MaskedPatchEmbed",
    "Mlp",
    "MotionEntropyGuidance",
    "TransformerBlock",
    "TransformerStack",
    "VisibleAttention",
    "WeightedReconstructionLoss",
    "describe_features",
    "initialize",
    "table",
]
