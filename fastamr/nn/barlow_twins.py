"""Make two views of a batch agree feature by feature, and the features differ from each other (Barlow Twins)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.common.precision import exact


def standardize_rows(features: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Scale each of the features ``(R, D)`` to mean 0 and (biased) variance 1 over the rows; constant ones become 0.

    Args:
        features: one vector a row, float32 or float64.
        eps: added to the variance (the value of batch normalisation, which the public code uses).
    """
    centred = features - features.mean(0)
    return centred * (centred.square().mean(0) + eps).rsqrt()


def cross_correlation(first: Tensor, second: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Correlation over the rows ``(D, D)`` of each feature of ``first (R, D)`` with each of ``second (R, D)``.

    In float32 (float64 for float64 features), also under autocast.
    """
    with exact(first):
        dtype = torch.promote_types(torch.float32, first.dtype)
        left, right = (standardize_rows(features.to(dtype), eps=eps) for features in (first, second))
        return left.T @ right / first.shape[0]


class BarlowTwinsLoss(nn.Module):
    """``sum_i (1 - C_ii)^2 + weight * sum_{i != j} C_ij^2`` of the cross-correlation C (Zbontar et al., ICML 2021).

    C is a statistic of all rows of the call: the loss of a batch is not the mean of the losses of its parts.

    Args:
        weight: of the redundancy, lambda (ASMa and PSTL: 2e-4).
        eps: added to the features' variance.
    """

    def __init__(self, weight: float = 2e-4, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare two views ``(R, D)`` of the same R sequences.

        Returns:
            Scalar loss, float32 (float64 for float64 features), and its parts before weighting, without gradient:
            ``invariance`` (the first sum) and ``redundancy`` (the second).
        """
        correlation = cross_correlation(first, second, eps=self.eps)
        with exact(first):
            diagonal = correlation.diagonal()
            invariance = (1 - diagonal).square().sum()
            redundancy = (correlation - diagonal.diag()).square().sum()
            loss = invariance + self.weight * redundancy
        return loss, {"invariance": invariance.detach(), "redundancy": redundancy.detach()}

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"weight={self.weight}"


class BarlowProjector(nn.Sequential):
    """Linear layers of one width with batch normalisation and ReLU between them (Barlow Twins).

    Args:
        width: D, of the features.
        hidden: Z, of every layer.
        layers: linear layers (Barlow Twins: 3).

    Shapes:
        ``(R, D)`` to ``(R, Z)``; in training mode R is at least 2.
    """

    def __init__(self, width: int, hidden: int, *, layers: int = 3) -> None:
        parts: list[nn.Module] = []
        for layer in range(layers - 1):
            # Batch normalisation takes the mean away: a bias would never learn.
            parts += [nn.Linear(hidden if layer else width, hidden, bias=False)]
            parts += [nn.BatchNorm1d(hidden), nn.ReLU()]
        super().__init__(*parts, nn.Linear(hidden, hidden, bias=False))
