from __future__ import annotations

import pytest
import torch

from fastamr.nn import BarlowProjector, BarlowTwinsLoss
from fastamr.nn.barlow_twins import cross_correlation, standardize_rows


def test_the_loss_of_two_small_views_by_hand() -> None:
    """Correlations [[1, 0], [0, -1]] of the first pair, [[1, -1], [-1, 1]] of the second."""
    first = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    opposite = first * torch.tensor([3.0, -2.0]) + torch.tensor([5.0, 7.0])
    loss, parts = BarlowTwinsLoss(0.5, eps=0.0)(first, opposite)
    torch.testing.assert_close(loss, torch.tensor(4.0))
    torch.testing.assert_close(parts, {"invariance": torch.tensor(4.0), "redundancy": torch.tensor(0.0)})
    doubled = first[:, :1] * torch.tensor([1.0, -1.0])
    loss, parts = BarlowTwinsLoss(0.5, eps=0.0)(doubled, doubled)
    torch.testing.assert_close(loss, torch.tensor(1.0))
    torch.testing.assert_close(parts, {"invariance": torch.tensor(0.0), "redundancy": torch.tensor(2.0)})


def test_correlation_is_numpys() -> None:
    first, second = torch.randn(2, 40, 5, dtype=torch.float64)
    joint = torch.corrcoef(torch.cat([first, second], dim=1).T)
    torch.testing.assert_close(cross_correlation(first, second, eps=0.0), joint[:5, 5:])
    torch.testing.assert_close(
        standardize_rows(first), torch.nn.functional.batch_norm(first, None, None, training=True)
    )


def test_gradient_and_constant_features() -> None:
    first, second = torch.randn(2, 6, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *views: BarlowTwinsLoss(0.1)(*views)[0],
        (first.detach().requires_grad_(), second.detach().requires_grad_()),
    )
    still = torch.full((6, 3), 2.0, requires_grad=True)
    loss, parts = BarlowTwinsLoss()(still, still)
    loss.backward()
    assert loss == 3
    assert torch.isfinite(still.grad).all()
    assert not any(part.requires_grad for part in parts.values())


def test_autocast_and_half_precision_do_not_reach_the_loss() -> None:
    first, second = torch.randn(2, 64, 16)
    expected, _ = BarlowTwinsLoss()(first, second)
    with torch.autocast("cpu", torch.bfloat16):
        loss, parts = BarlowTwinsLoss()(first, second)
    assert torch.equal(loss, expected)
    assert parts["redundancy"].dtype == torch.float32
    halves = first.bfloat16(), second.bfloat16()
    loss, _ = BarlowTwinsLoss()(*halves)
    assert torch.equal(loss, BarlowTwinsLoss()(*(half.float() for half in halves))[0])


def test_a_batch_is_more_than_its_parts() -> None:
    """Why accumulate changes the method: statistics of halves are not those of the whole."""
    torch.manual_seed(0)
    first, second = torch.randn(2, 16, 8)
    whole = BarlowTwinsLoss()(first, second)[0]
    halves = [BarlowTwinsLoss()(*part)[0] for part in zip(first.chunk(2), second.chunk(2), strict=True)]
    assert abs(whole - sum(halves) / 2) > 0.1


@pytest.mark.parametrize("layers", [1, 3])
def test_projector(layers: int) -> None:
    projector = BarlowProjector(8 if layers > 1 else 12, 12, layers=layers)
    linear = [part for part in projector if isinstance(part, torch.nn.Linear)]
    assert len(linear) == layers
    assert all(part.bias is None and part.out_features == 12 for part in linear)
    assert projector(torch.randn(4, linear[0].in_features)).shape == (4, 12)
