from __future__ import annotations

import math

import pytest
import torch

from fastamr.nn import FeaturePredictionLoss, describe_features
from fastamr.nn.feature_prediction_loss import squared_error
from fastamr.nn.feature_spread import (
    covariance_loss,
    effective_rank,
    feature_covariance,
    feature_std,
    variance_loss,
)

# Four vectors of two features.
ROWS = torch.tensor([[1.0, 2.0], [3.0, 0.0], [5.0, 2.0], [3.0, 0.0]])


def test_covariance_by_hand() -> None:
    """Means 3 and 1; centred (-2, 1), (0, -1), (2, 1), (0, -1); sums of products 8, 0 and 4 over n - 1 = 3."""
    expected = torch.tensor([[8 / 3, 0.0], [0.0, 4 / 3]])
    torch.testing.assert_close(feature_covariance(ROWS), expected)
    slanted = ROWS.clone()
    slanted[2, 1] = 4.0
    # Mean 1.5; centred second feature 0.5, -1.5, 2.5, -1.5: squares 11, product with (-2, 0, 2, 0) is 4.
    expected = torch.tensor([[8 / 3, 4 / 3], [4 / 3, 11 / 3]])
    torch.testing.assert_close(feature_covariance(slanted), expected)


def test_rows_that_do_not_count_change_nothing() -> None:
    more = torch.cat([ROWS, torch.tensor([[1e3, -1e3], [7.0, 7.0]])])
    counted = torch.tensor([True] * 4 + [False] * 2)
    torch.testing.assert_close(feature_covariance(more, counted), feature_covariance(ROWS))
    for few in (ROWS[:0], ROWS[:1]):
        assert (feature_covariance(few) == 0).all()
    assert (feature_covariance(ROWS, torch.zeros(4, dtype=torch.bool)) == 0).all()


def test_losses_by_hand() -> None:
    covariance = torch.tensor([[0.25, 0.1, 0.0], [0.1, 0.04, -0.3], [0.0, -0.3, 4.0]])
    # Standard deviations 0.5, 0.2 and 2 fall short of 1 by 0.5, 0.8 and 0.
    assert variance_loss(covariance, eps=0.0).item() == pytest.approx((0.5 + 0.8) / 3, rel=1e-6)
    expected = (1 - math.sqrt(0.25 + 1e-4) + 1 - math.sqrt(0.04 + 1e-4)) / 3
    assert variance_loss(covariance).item() == pytest.approx(expected, rel=1e-6)
    # Off the diagonal twice 0.1 and twice -0.3, over three features.
    assert covariance_loss(covariance).item() == pytest.approx(2 * (0.01 + 0.09) / 3, rel=1e-6)
    assert feature_std(covariance).item() == pytest.approx(math.sqrt(4.29 / 3), rel=1e-6)


def test_effective_rank_by_hand() -> None:
    assert effective_rank(torch.eye(5) * 0.3).item() == pytest.approx(5)
    assert effective_rank(torch.diag(torch.tensor([2.0, 0, 0]))).item() == pytest.approx(1)
    assert effective_rank(torch.diag(torch.tensor([3.0, 1, 0]))).item() == pytest.approx(16 / 10)
    direction = torch.tensor([[3.0, 4.0]])
    assert effective_rank(direction.T @ direction).item() == pytest.approx(1)
    assert effective_rank(torch.zeros(3, 3)) == 0


def test_a_constant_feature_has_a_finite_gradient() -> None:
    features = torch.ones(8, 3, requires_grad=True)
    variance_loss(feature_covariance(features)).backward()
    assert torch.isfinite(features.grad).all()


def test_squared_error_by_hand() -> None:
    prediction = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    feature = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    assert squared_error(prediction, feature) == (4 / 2 + 1 / 2) / 2
    assert squared_error(prediction, feature, torch.tensor([[True, False]])) == 2
    assert squared_error(prediction, feature, torch.tensor([[False, False]])) == 0
    assert squared_error(prediction[:0], feature[:0]) == 0


def test_total_is_the_weighted_sum_over_levels_and_every_term_is_reported() -> None:
    torch.manual_seed(0)
    predictions = [torch.randn(4, 6, 3), torch.randn(4, 1, 3)]
    features = [torch.randn(4, 6, 3, requires_grad=True), torch.randn(4, 1, 3, requires_grad=True)]
    criterion = FeaturePredictionLoss(prediction=5.0, covariance=3.0, variance=2.0)
    loss, terms = criterion(predictions, features, [None, None], ["near", "far"])
    expected = 0.0
    for name, prediction, feature in zip(("near", "far"), predictions, features, strict=True):
        covariance = torch.cov(feature.detach().flatten(0, 1).T)
        parts = {
            "prediction": (prediction - feature.detach()).square().mean(),
            "covariance": (covariance.square().sum() - covariance.diagonal().square().sum()) / 3,
            "variance": (1 - (covariance.diagonal() + 1e-4).sqrt()).clamp(min=0).mean(),
        }
        for part, value in parts.items():
            torch.testing.assert_close(terms[f"{part}/{name}"], value)
        expected += 5 * parts["prediction"] + 3 * parts["covariance"] + 2 * parts["variance"]
        spread = describe_features(name, feature.detach().flatten(0, 1))
        assert all(terms[term] == value for term, value in spread.items())
    torch.testing.assert_close(loss, expected)
    assert len(terms) == 10
    assert not any(term.requires_grad for term in terms.values())
    loss.backward()
    assert all(feature.grad.abs().sum() > 0 for feature in features)


def test_statistics_are_float32_under_autocast() -> None:
    """Features 256 apart from zero that differ by hundredths: bfloat16 sums would see no difference at all."""
    rows = 256 + 0.01 * torch.randn(500, 8, dtype=torch.float64)
    exact = feature_covariance(rows)
    with torch.autocast("cpu", torch.bfloat16):
        covariance = feature_covariance(rows.float())
        error = squared_error(rows.float()[None], rows.float()[None] + 0.01)
    assert covariance.dtype == error.dtype == torch.float32
    torch.testing.assert_close(covariance.double(), exact, rtol=0.02, atol=2e-6)
    assert error.item() == pytest.approx(1e-4, rel=0.02)
