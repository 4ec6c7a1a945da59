"""What every op means, in plain PyTorch: one file per op, readable in a minute, float64-safe.

These functions check nothing and choose no back end; call the ops of :mod:`fastamr.ops` unless the plain form itself
is wanted, for example as the truth in a test.
"""

from .adamw_update import adamw_update
from .attention.visible_attention import visible_attention
from .augment_clips import augment_clips
from .drop_path_scales import drop_path_scales
from .masked_patch_gather import masked_patch_gather
from .motion_entropy import motion_entropy
from .motion_guidance import motion_guidance
from .patch_gather import patch_gather
from .philox import philox_words
from .rows.linear_gelu import linear_gelu, linear_gelu_backward
from .rows.linear_residual_norm import linear_residual_norm, linear_residual_norm_backward
from .rows.row_linear import row_linear, row_linear_backward
from .rows.row_norm import row_norm, row_norm_backward
from .rows.weight_gradient import weight_gradient
from .sample_clips import sample_clips
from .select_visible import select_visible
from .weighted_reconstruction_loss import weighted_reconstruction_loss

__all__ = [
    "adamw_update",
    "augment_clips",
    "drop_path_scales",
    "linear_gelu",
    "linear_gelu_backward",
    "linear_residual_norm",
    "linear_residual_norm_backward",
    "masked_patch_gather",
    "motion_entropy",
    "motion_guidance",
    "patch_gather",
    "philox_words",
    "row_linear",
    "row_linear_backward",
    "row_norm",
    "row_norm_backward",
    "sample_clips",
    "select_visible",
    "visible_attention",
    "weight_gradient",
    "weighted_reconstruction_loss",
]
