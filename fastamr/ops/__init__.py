"""The ops: public functions with argument checks, registered with PyTorch's dispatcher under ``fastamr::``.

Every file here is one op, as is every file of ``rows/`` but its helpers and ``visible_attention`` in ``attention/``;
``common/`` holds what they share. The ops of ``rows/``, which fused blocks are built of, carry no autograd and are not
registered. The file of the same name in :mod:`fastamr.reference` says what an op means; which back end runs is chosen
in :mod:`.common.backends`. CONTRIBUTING.md lists what a new op needs.
"""

from .adamw_update import adamw_update
from .attention.checks import AttentionBias
from .attention.sdpa import SdpaState, sdpa_backward_into, sdpa_forward
from .attention.visible_attention import (
    ATTENTION_WITH_LSE,
    attention_backend,
    visible_attention,
    visible_attention_backward_into,
    visible_attention_forward,
)
from .augment_clips import augment_clips
from .common.backends import availability, backend, reference_only
from .common.column_sums import ColumnSums
from .common.seeds import derive_seed, make_seed
from .common.stack_backends import choose_stack
from .drop_path_scales import drop_path_scales
from .masked_patch_gather import masked_patch_gather
from .motion_entropy import motion_entropy
from .motion_guidance import motion_guidance
from .patch_gather import patch_gather
from .rows.linear_gelu import linear_gelu, linear_gelu_backward
from .rows.linear_residual_norm import linear_residual_norm, linear_residual_norm_backward
from .rows.row_linear import row_linear, row_linear_backward
from .rows.row_norm import row_norm, row_norm_backward
from .rows.weight_gradient import groups_weight_gradients, weight_gradient, weight_gradients
from .sample_clips import sample_clips
from .select_visible import select_visible
from .weighted_reconstruction_loss import reconstruction_target, weighted_reconstruction_loss

__all__ = [
    "ATTENTION_WITH_LSE",
    "AttentionBias",
    "ColumnSums",
    "SdpaState",
    "adamw_update",
    "attention_backend",
    "augment_clips",
    "availability",
    "backend",
    "choose_stack",
    "derive_seed",
    "drop_path_scales",
    "groups_weight_gradients",
    "linear_gelu",
    "linear_gelu_backward",
    "linear_residual_norm",
    "linear_residual_norm_backward",
    "make_seed",
    "masked_patch_gather",
    "motion_entropy",
    "motion_guidance",
    "patch_gather",
    "reconstruction_target",
    "reference_only",
    "row_linear",
    "row_linear_backward",
    "row_norm",
    "row_norm_backward",
    "sample_clips",
    "sdpa_backward_into",
    "sdpa_forward",
    "select_visible",
    "visible_attention",
    "visible_attention_backward_into",
    "visible_attention_forward",
    "weight_gradient",
    "weight_gradients",
    "weighted_reconstruction_loss",
]
