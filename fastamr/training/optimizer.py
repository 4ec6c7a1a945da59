"""AdamW with the learning rate in a tensor, and the schedule of the recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..models import SkeletonModel


def learning_rate(step: int, *, lr: float, min_lr: float, warmup: int, total: int) -> float:
    """Return the learning rate of one update: linear warm-up, then a cosine down to ``min_lr``.

    Choice: computed per update, not per epoch; the first update has ``lr / warmup``, update ``warmup - 1``
        has
    ``lr`` and the last one ``min_lr``.

    Args:
        step: the update, counted from 0.
        lr: the highest value.
        min_lr: the last value.
        warmup: updates of the warm-up.
        total: updates of the run.
    """
    done = step + 1
    if done <= warmup:
        return lr * done / warmup
    share = min(1.0, (done - warmup) / max(1, total - warmup))
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * share))


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
