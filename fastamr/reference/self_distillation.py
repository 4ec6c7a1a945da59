"""The losses of a student and its teacher as their papers write them, without a thought of speed or of memory."""

from __future__ import annotations

import torch
from torch import Tensor


def sinkhorn_targets(
    scores: Tensor, temperature: float, *, rounds: int = 3, counted: Tensor | None = None
) -> Tensor:
    """See :func:`fastamr.nn.self_distillation.prototypes.sinkhorn_targets`; SwAV's algorithm 1 over the counted rows.

    The matrix itself is scaled, once over the prototypes and once over the rows in every round.
    """
    kept = torch.ones(len(scores), dtype=torch.bool) if counted is None else counted.cpu()
    plan = ((scores[kept] - scores.max()) / temperature).exp().T
    prototypes, rows = plan.shape
    plan = plan / plan.sum()
    for _ in range(rounds):
        plan = plan / plan.sum(1, keepdim=True) / prototypes
        plan = plan / plan.sum(0, keepdim=True) / rows
    result = torch.zeros_like(scores)
    result[kept] = (plan * rows).T
    return result


def class_loss(scores: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """See :func:`fastamr.nn.self_distillation.prototypes.class_loss`; pair by pair."""
    pairs = [
        -(targets[:, teacher] * (scores[:, student] / temperature).log_softmax(-1)).sum(-1).mean()
        for student in range(scores.shape[1])
        for teacher in range(targets.shape[1])
        if student != teacher
    ]
    return torch.stack(pairs).mean()


def patch_loss(scores: Tensor, targets: Tensor, temperature: float, counted: Tensor) -> Tensor:
    """See :func:`fastamr.nn.self_distillation.prototypes.patch_loss`; row by row."""
    errors = [
        -(target * (row / temperature).log_softmax(-1)).sum()
        for row, target, counts in zip(scores, targets, counted.tolist(), strict=True)
        if counts
    ]
    return torch.stack(errors).mean() if errors else scores.sum() * 0


def koleo_loss(features: Tensor, *, least: float = 1e-4) -> Tensor:
    """See :func:`fastamr.nn.self_distillation.prototypes.koleo_loss`; all distances are written out."""
    rows = features / features.square().sum(1, keepdim=True).sqrt()
    logs = []
    for place, row in enumerate(rows):
        others = torch.cat([rows[:place], rows[place + 1 :]])
        distance = (others - row).square().sum(1).min().sqrt()
        logs.append(distance.clamp(min=least).log())
    return -torch.stack(logs).mean()
