"""AdamW with the learning rate in a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..nn.learning_rate import learning_rate

if TYPE_CHECKING:
    from ..models import SkeletonModel

__all__ = ["build_optimizer", "learning_rate", "learning_rate_tensor"]


def build_optimizer(
    model: SkeletonModel, *, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """Build fused AdamW over the model's parameter groups (no decay on biases, norms, tokens and embeddings).

    The groups share one learning-rate tensor on the model's device, see :func:`learning_rate_tensor`. On a
    GPU the optimizer is capturable, so that a step can be recorded in a CUDA graph.
    """
    device = next(model.parameters()).device
    rate = torch.tensor(lr, dtype=torch.float32, device=device)
    groups = [{**group, "lr": rate} for group in model.parameter_groups(weight_decay)]
    return torch.optim.AdamW(
        groups, lr=rate, betas=betas, weight_decay=weight_decay, fused=True, capturable=device.type == "cuda"
    )


def learning_rate_tensor(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the scalar float32 tensor that all groups of :func:`build_optimizer` read; fill it in place."""
    return optimizer.param_groups[0]["lr"]
