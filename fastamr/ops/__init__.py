"""The ops: public functions with argument checks, registered with PyTorch's dispatcher under ``fastamr::``.

Each op has one file here and one of the same name in :mod:`fastamr.reference`, which says what it means. Which back end
runs is chosen in :mod:`fastamr.ops.backends`.
"""

from .adamw_update import adamw_update
from .attention_checks import AttentionBias
from .backends import availability, backend
from .masked_patch_gather import masked_patch_gather
from .motion_entropy import motion_entropy
from .motion_guidance import motion_guidance
from .patch_gather import patch_gather
from .sample_clips import sample_clips
from .seeds import derive_seed, make_seed
from .select_visible import select_visible
from .visible_attention import visible_attention, visible_attention_backward_into
from .weighted_reconstruction_loss import reconstruction_target, weighted_reconstruction_loss

__all__ = [
    "AttentionBias",
    "adamw_update",
    "availability",
    "backend",
    "derive_seed",
    "make_seed",
    "masked_patch_gather",
    "motion_entropy",
    "motion_guidance",
    "patch_gather",
    "reconstruction_target",
    "sample_clips",
    "select_visible",
    "visible_attention",
    "visible_attention_backward_into",
    "weighted_reconstruction_loss",
]
