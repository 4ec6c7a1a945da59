"""Predict features that are themselves learned, without letting them collapse (GFP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..distributed import processes, share_of
from ..ops.common.precision import exact
from .feature_spread import (
    covariance_loss,
    effective_rank,
    feature_covariance,
    feature_std,
    variance_loss,
)


class FeaturePredictionLoss(nn.Module):
    """Squared error of predicted features, variance and covariance loss of the features, summed over levels.

    The error counts per level as the two others do (choice): a mean over all targets would leave the single global
    target out. The gradient flows to the features, too: prediction and target move towards each other.

    Args:
        prediction: weight of the mean squared error.
        covariance: weight of the covariance loss.
        variance: weight of the variance loss.
        eps: added to the variance, see :func:`fastamr.nn.feature_spread.variance_loss`.
    """

    def __init__(
        self, *, prediction: float = 5.0, covariance: float = 5.0, variance: float = 1.0, eps: float = 1e-4
    ) -> None:
        super().__init__()
        self.prediction, self.covariance, self.variance, self.eps = prediction, covariance, variance, eps

    def forward(
        self,
        predictions: Sequence[Tensor],
        features: Sequence[Tensor],
        counted: Sequence[Tensor | None],
        names: Sequence[str],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare level by level.

        Args:
            predictions: ``(S, Q, Z)`` a level.
            features: the targets, alike.
            counted: ``(S, Q)`` bool a level, the targets that count; None for all.
            names: of the levels.

        Returns:
            Scalar loss, float32 (float64 for float64 features), and without gradient its parts before weighting and
            the spread of the features: ``prediction/NAME``, ``covariance/NAME``, ``variance/NAME``, ``std/NAME`` and
            ``rank/NAME``.
        """
        total = torch.zeros((), device=features[0].device)
        terms: dict[str, Tensor] = {}
        for prediction, feature, counts, name in zip(predictions, features, counted, names, strict=True):
            covariance = feature_covariance(
                feature.flatten(0, 1), None if counts is None else counts.flatten()
            )
            parts = {
                "prediction": squared_error(prediction, feature, counts),
                "covariance": covariance_loss(covariance),
                "variance": variance_loss(covariance, eps=self.eps),
            }
            total = total + sum(getattr(self, part) * value for part, value in parts.items())
            terms |= {f"{part}/{name}": value.detach() for part, value in parts.items()}
            terms |= _spread(name, covariance.detach())
        return total, terms

    def extra_repr(self) -> str:
        """Options shown by ``repr``."""
        return f"prediction={self.prediction}, covariance={self.covariance}, variance={self.variance}"


def squared_error(prediction: Tensor, feature: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean squared difference of ``(S, Q, Z)`` features over those that ``counted (S, Q)`` lists; 0 where none is."""
    with exact(feature):
        dtype = torch.promote_types(torch.float32, feature.dtype)
        errors = (prediction.to(dtype) - feature.to(dtype)).square().mean(2)
        if counted is None:
            return errors.sum() / max(errors.numel(), 1)
        number = counted.sum()
        mean = torch.where(counted, errors, 0).sum() / number.clamp(min=1)
        return mean if processes() == 1 else mean * share_of(number)


def describe_features(name: str, features: Tensor) -> dict[str, Tensor]:
    """Standard deviation ``std/NAME`` and effective rank ``rank/NAME`` of ``features (R, D)`` over their rows."""
    return _spread(name, feature_covariance(features))


def _spread(name: str, covariance: Tensor) -> dict[str, Tensor]:
    return {f"std/{name}": feature_std(covariance), f"rank/{name}": effective_rank(covariance)}
