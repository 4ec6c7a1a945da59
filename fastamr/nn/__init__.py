"""Drop-in modules built on :mod:`fastamr.ops`; usable in any model of skeleton sequences.

The names of their parameters are part of every checkpoint. Stacks of blocks, fused or not, live in :mod:`.stacks`.
"""

from .barlow_twins import BarlowProjector, BarlowTwinsLoss
from .drop_path import DropPath
from .feature_alignment import FeatureAlignment
from .feature_prediction_loss import FeaturePredictionLoss, describe_features
from .initialization import initialize, table
from .masked_patch_gather import MaskedPatchEmbed
from .motion_guidance import MotionEntropyGuidance
from .st_gcn import STGCN
from .stacks.transformer_stack import CrossAttentionStack, TransformerStack
from .transformer_block import CrossAttentionBlock, Mlp, TransformerBlock
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
