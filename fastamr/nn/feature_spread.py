"""How far learned features spread: the losses that keep them from collapsing, and what shows that they did.

All start from one covariance matrix. It and what follows from it are float32 (float64 for float64 features), also under
autocast, because sums over a batch in bfloat16 lose the small differences that a collapse leaves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributed import processes, total
from ..ops.common.precision import exact


def feature_covariance(features: Tensor, counted: Tensor | None = None) -> Tensor:
    """Unbiased covariance ``(D, D)`` of ``features (R, D)`` over their rows.

    Where the batch lies in several processes (:func:`fastamr.distributed.spread_over`), over the rows of all of them.

    Args:
        features: one vector a row.
        counted: ``(R,)`` bool, the rows that count; None counts all.

    Returns:
        The covariance; zero where fewer than two rows count.
    """
    with exact(features):
        rows = features.to(torch.promote_types(torch.float32, features.dtype))
        if counted is None and processes() == 1:
            centred = rows - rows.mean(0) if rows.shape[0] else rows
            return centred.T @ centred / max(rows.shape[0] - 1, 1)
        weight = torch.ones_like(rows[:, :1]) if counted is None else counted.to(rows.dtype)[:, None]
        number = total(weight.sum())
        centred = (rows - total((rows * weight).sum(0)) / number.clamp(min=1)) * weight
        return total(centred.T @ centred) / (number - 1).clamp(min=1)


def variance_loss(covariance: Tensor, *, least: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Mean over the features of how much their standard deviation falls short of ``least`` (VICReg, GFP).

    Args:
        covariance: ``(D, D)`` from :func:`feature_covariance`.
        least: the standard deviation from which on nothing is asked (paper: 1).
        eps: added to the variance, so that the gradient is finite where a feature is constant (VICReg's value).
    """
    return (least - (covariance.diagonal() + eps).sqrt()).relu().mean()


def covariance_loss(covariance: Tensor) -> Tensor:
    """Sum of the squared covariances of different features over their number D (VICReg, GFP)."""
    others = covariance - covariance.diagonal().diag()
    return others.square().sum() / covariance.shape[0]


def feature_std(covariance: Tensor) -> Tensor:
    """Root of the features' mean variance."""
    return covariance.diagonal().mean().sqrt()


def effective_rank(covariance: Tensor) -> Tensor:
    """Number of directions that the features really use, 1 to D: ``trace(C)**2 / trace(C @ C)``.

    The participation ratio of the eigenvalues (choice): D for equal ones, 1 when one direction holds everything. It
    needs no eigenvalues, which a GPU cannot compute without making the host wait. 0 where nothing varies.
    """
    trace = covariance.diagonal().sum()
    return trace.square() / covariance.square().sum().clamp(min=torch.finfo(covariance.dtype).tiny)
