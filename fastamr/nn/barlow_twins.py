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
        left, right = _standardized(first, second, eps)
        return left.T @ right / first.shape[0]


def _standardized(first: Tensor, second: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.float32, first.dtype)
    return standardize_rows(first.to(dtype), eps=eps), standardize_rows(second.to(dtype), eps=eps)


def sums_by_features(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`correlation_sums` returns, from C itself: ``2*R*D^2`` operations and several passes over C."""
    correlation = left.T @ right / left.shape[0]
    diagonal = correlation.diagonal()
    return diagonal, (correlation - diagonal.diag()).square().sum()


def sums_by_rows(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`correlation_sums` returns, without C: ``4*R^2*D`` operations and two ``(R, R)`` matrices.

    ``sum_ij C_ij^2 = <left left', right right'> / R^2``, less the diagonal's squares. The difference does no harm while
    ``R <= D/2``: C has rank R at most, so that all squares sum to at least ``(sum_i |C_ii|)^2 / R``. Either a fifth of
    them lies beside the diagonal, or ``sum_i |C_ii| < 0.8 D`` and the invariance term is at least 0.04 D, beside which
    rounding of the difference is nothing.
    """
    rows = left.shape[0]
    diagonal = (left * right).sum(0) / rows
    squares = ((left @ left.T) * (right @ right.T)).sum() / rows**2
    return diagonal, squares - diagonal.square().sum()


def correlation_sums(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal ``(D,)`` of ``C = left'right / R`` and the sum of the squares beside it, a scalar.

    Two forms of the same numbers, chosen by the shape alone: by rows where ``R <= D/2``, which is then cheaper and as
    exact, else by features. No shape depends on a value.

    Args:
        left: ``(R, D)`` from :func:`standardize_rows`, float32 or float64.
        right: alike.
    """
    rows, width = left.shape
    return sums_by_rows(left, right) if 2 * rows <= width else sums_by_features(left, right)


class BarlowTwinsLoss(nn.Module):
    """``sum_i (1 - C_ii)^2 + weight * sum_{i != j} C_ij^2`` of the cross-correlation C (Zbontar et al., ICML 2021).

    C is a statistic of all rows of the call: the loss of a batch is not the mean of the losses of its parts. Where the
    rows are few C is never formed (:func:`correlation_sums`). Features of 16 bits are widened first: everything is
    computed and summed in float32 (float64 for float64 features), also under autocast.

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
            ``invariance`` (the first sum) and ``redundancy`` (the second), neither below 0.
        """
        with exact(first):
            diagonal, redundancy = correlation_sums(*_standardized(first, second, self.eps))
            invariance = (1 - diagonal).square().sum()
            loss = invariance + self.weight * redundancy
        # A difference that is 0 may come out below it.
        return loss, {"invariance": invariance.detach(), "redundancy": redundancy.detach().clamp(min=0)}

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"weight={self.weight}"


class BarlowProjector(nn.Sequential):
    """Linear layers of one width with batch normalisation and ReLU between them (Barlow Twins).

    Several views of a batch go through it together: the linear layers, whose weights are far larger than the views,
    are read once, and their gradients written once, while each view keeps the batch statistics of its own rows.

    Args:
        width: D, of the features.
        hidden: Z, of every layer.
        layers: linear layers (Barlow Twins: 3).

    Shapes:
        ``(R, D)`` to ``(R, Z)``; with V views ``(V*R, D)`` to ``(V*R, Z)``, one after another. In training mode R is
        at least 2.
    """

    def __init__(self, width: int, hidden: int, *, layers: int = 3) -> None:
        parts: list[nn.Module] = []
        for layer in range(layers - 1):
            # Batch normalisation takes the mean away: a bias would never learn.
            parts += [nn.Linear(hidden if layer else width, hidden, bias=False)]
            parts += [nn.BatchNorm1d(hidden), nn.ReLU()]
        super().__init__(*parts, nn.Linear(hidden, hidden, bias=False))

    def forward(self, input: Tensor, views: int = 1) -> Tensor:
        """Project the rows of one view, or of several of equal size.

        Raises:
            ValueError: the rows are not a multiple of the views.
        """
        if views < 1 or input.shape[0] % views:
            raise ValueError(
                f"{input.shape[0]} rows cannot be {views} views of equal size: give each view as many rows"
            )
        for layer in self:
            if isinstance(layer, nn.BatchNorm1d) and views > 1:
                input = torch.cat([layer(part) for part in input.chunk(views)])
            else:
                input = layer(input)
        return input
