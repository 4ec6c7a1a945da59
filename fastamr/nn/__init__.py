"""Drop-in modules built on :mod:`fastamr.ops`; usable in any model of skeleton sequences.

A training loop of one's own on a CPU calls :func:`fastamr.memory.keep_freed_memory` once, as ``fastamr``'s commands do.
The names of their parameters are part of every checkpoint. Stacks of blocks, fused or not, live in :mod:`.stacks`.
"""

import warnings
from typing import Any

from .barlow_twins import BarlowProjector, BarlowTwinsLoss
from .drop_path import DropPath, drop_path_seed
from .feature_alignment import FeatureAlignment
from .feature_prediction_loss import FeaturePredictionLoss, describe_features
from .initialization import initialize, learned_embedding, without_decay
from .masked_patch_gather import MaskedPatchEmbed
from .motion_guidance import MotionEntropyGuidance
from .st_gcn import STGCN
from .stacks.linear import WorkingLinear
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
    "WorkingLinear",
    "describe_features",
    "drop_path_seed",
    "initialize",
    "learned_embedding",
    "without_decay",
]


def __getattr__(name: str) -> Any:
    if name == "table":
        warnings.warn(
            "fastamr.nn.table is now fastamr.nn.learned_embedding: import that name instead",
            DeprecationWarning,
            stacklevel=2,
        )
        return learned_embedding
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
