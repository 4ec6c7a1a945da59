"""AdamW over a model's groups, with one learning rate in a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...nn import CrossAttentionStack
from ...nn.learning_rate import learning_rate
from .adamw import AdamW

if TYPE_CHECKING:
    from ...models import SkeletonModel

__all__ = ["AdamW", "build_optimizer", "learning_rate", "learning_rate_tensor"]


def build_optimizer(
    model: SkeletonModel,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    working_dtype: torch.dtype | None = None,
    clip_grad: float | None = None,
) -> AdamW:
    """Build AdamW over the model's parameter groups (no decay on biases, norms, tokens and embeddings).

    The groups share one learning-rate tensor on the model's device, see :func:`learning_rate_tensor`.

    Args:
        model: the model, on its device.
        lr: learning rate of the first update.
        betas: decay of the two moments.
        weight_decay: decoupled, of the weights.
        working_dtype: dtype of the copies that fused layers compute with, or None, see :class:`AdamW`.
        clip_grad: largest norm of the gradient, or None.
    """
    rate = torch.tensor(lr, dtype=torch.float32, device=next(model.parameters()).device)
    groups = [{**group, "lr": rate} for group in model.parameter_groups(weight_decay)]
    return AdamW(
        groups,
        lr=rate,
        betas=betas,
        weight_decay=weight_decay,
        working_dtype=working_dtype,
        clip_grad=clip_grad,
        together=[
            parameters
            for module in model.modules()
            if isinstance(module, CrossAttentionStack)
            for parameters in module.joined_parameters()
        ],
    )


def learning_rate_tensor(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the scalar float32 tensor that all groups of :func:`build_optimizer` read; fill it in place."""
    return optimizer.param_groups[0]["lr"]
