from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastamr.nn import BarlowProjector, BarlowTwinsLoss
from fastamr.nn.barlow_twins import cross_correlation, standardize_rows, sums_by_features, sums_by_rows

# Rows and features on both sides of the bound, and at it.
SHAPES = [(2, 96), (16, 96), (48, 96), (49, 96), (130, 96), (16, 33), (2, 4), (2, 1)]
FORMS = [sums_by_features, sums_by_rows]


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


def views(rows: int, width: int, kind: str) -> tuple[Tensor, Tensor]:
    """Two generated views in float64: alike as in a trained encoder, opposed, unlike, or mostly without variance."""
    torch.manual_seed(rows * width)
    base, first, second = torch.randn(3, rows, width, dtype=torch.float64)
    if kind == "unlike":
        return first, second
    first, second = base + 0.3 * first, base + 0.3 * second
    if kind == "opposed":
        return first, second * torch.where(torch.arange(width) % 2 == 0, 1.0, -1.0)
    if kind == "dead":
        first[:, width // 8 + 1 :] = 0.7
    return first, second


def truth(first: Tensor, second: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, invariance and redundancy as the paper writes them: over the matrix itself, with its diagonal cut out."""
    correlation = cross_correlation(first, second)
    on = (1 - correlation.diagonal()).square().sum()
    beside = ~torch.eye(len(correlation), dtype=torch.bool)
    off = torch.where(beside, correlation, 0.0).square().sum()
    return on + weight * off, on, off


@pytest.mark.parametrize("kind", ["alike", "opposed", "unlike", "dead"])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_loss_terms_and_gradients_are_those_of_float64(rows: int, width: int, kind: str) -> None:
    """In float64 to its rounding, in float32 to a few units in the last place; the paper's balance at this width."""
    weight = 2e-4 * 6144 / width
    pair = views(rows, width, kind)
    exact = [view.clone().requires_grad_() for view in pair]
    loss, on, off = truth(*exact, weight)
    slopes = torch.autograd.grad(loss, exact)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        inputs = [view.to(dtype).requires_grad_() for view in pair]
        # What is compared with starts from the same rounded features.
        again = [view.detach().double().requires_grad_() for view in inputs]
        loss, on, off = truth(*again, weight)
        slopes = torch.autograd.grad(loss, again)
        found, parts = BarlowTwinsLoss(weight)(*inputs)
        assert found.dtype == parts["invariance"].dtype == parts["redundancy"].dtype == dtype
        torch.testing.assert_close(found.double(), loss, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(parts["invariance"].double(), on, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(parts["redundancy"].double(), off, rtol=tolerance, atol=tolerance * width)
        assert parts["redundancy"] >= 0
        for slope, expected in zip(torch.autograd.grad(found, inputs), slopes, strict=True):
            # Of two rows only the signs are left: the slope is all but 0, a difference of terms of the size 1.
            scale = 1.0 if rows == 2 else max(float(expected.abs().max()), 0.01)
            torch.testing.assert_close(slope.double(), expected, rtol=0, atol=10 * tolerance * scale)


@pytest.mark.parametrize("kind", ["alike", "opposed", "unlike", "dead"])
@pytest.mark.parametrize(("rows", "width"), [(rows, width) for rows, width in SHAPES if 2 * rows <= width])
def test_by_rows_is_as_near_to_float64_as_by_features(rows: int, width: int, kind: str) -> None:
    weight = 2e-4 * 6144 / width
    errors = []
    for form in FORMS:
        inputs = [view.float().requires_grad_() for view in views(rows, width, kind)]
        again = [view.detach().double().requires_grad_() for view in inputs]
        loss = truth(*again, weight)[0]
        diagonal, off = form(*(standardize_rows(view) for view in inputs))
        found = (1 - diagonal).square().sum() + weight * off
        slopes = zip(torch.autograd.grad(found, inputs), torch.autograd.grad(loss, again), strict=True)
        slope_error = max(float((a - b).abs().max() / b.abs().max()) for a, b in slopes)
        errors.append((abs(float(found) / float(loss) - 1), slope_error))
    for by_features, by_rows in zip(*errors, strict=True):
        assert by_rows <= 3 * by_features + 5e-7


class Largest(TorchDispatchMode):
    """Notes the most values of a tensor that is made, and the dtypes of products."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.products = 0, set[torch.dtype]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.most = max(self.most, result.numel())
            self.products |= {result.dtype} if func.overloadpacket is torch.ops.aten.mm else set()
        return result


@pytest.mark.parametrize(("rows", "most"), [(2, 2 * 64), (32, 32 * 64), (33, 64 * 64), (200, 200 * 64)])
def test_few_rows_need_no_matrix_of_the_features(rows: int, most: int) -> None:
    """Forward and backward make nothing larger than the features where ``R <= D/2``."""
    first, second = (torch.randn(rows, 64, requires_grad=True) for _ in range(2))
    with Largest() as seen:
        BarlowTwinsLoss()(first, second)[0].backward()
    assert seen.most == most


def test_nothing_is_read_back() -> None:
    """Neither form needs a value on the host, so a CUDA graph records either."""
    with FakeTensorMode():
        for rows in (4, 64):
            first, second = (torch.randn(rows, 16, requires_grad=True) for _ in range(2))
            loss, parts = BarlowTwinsLoss()(first, second)
            loss.backward()
            assert loss.shape == parts["redundancy"].shape == ()
            assert first.grad is not None


@pytest.mark.parametrize(("rows", "width"), [(64, 16), (8, 64)])
def test_autocast_and_half_precision_do_not_reach_the_loss(rows: int, width: int) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, rows, width)
    expected, _ = BarlowTwinsLoss()(first, second)
    with torch.autocast("cpu", torch.bfloat16), Largest() as seen:
        loss, parts = BarlowTwinsLoss()(first, second)
    assert torch.equal(loss, expected)
    assert parts["redundancy"].dtype == torch.float32
    assert seen.products == {torch.float32}
    for dtype in (torch.bfloat16, torch.float16):
        halves = [view.to(dtype).requires_grad_() for view in (first, second)]
        loss, _ = BarlowTwinsLoss()(*halves)
        wide = [half.detach().float().requires_grad_() for half in halves]
        same, _ = BarlowTwinsLoss()(*wide)
        assert torch.equal(loss, same)
        slopes = zip(torch.autograd.grad(loss, halves), torch.autograd.grad(same, wide), strict=True)
        assert all(torch.equal(slope, expected.to(dtype)) for slope, expected in slopes)


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


@pytest.mark.parametrize("training", [True, False])
def test_views_that_go_through_together_are_each_as_if_alone(training: bool) -> None:
    """Projections, gradients and the running statistics that three calls leave behind, in float64."""
    torch.manual_seed(0)
    together = BarlowProjector(8, 12).double().train(training)
    alone = BarlowProjector(8, 12).double().train(training)
    alone.load_state_dict(together.state_dict())
    rows = [scale * torch.randn(5, 8, dtype=torch.float64) + scale for scale in (0.5, 1.0, 3.0)]
    weights = torch.randn(3, 5, 12, dtype=torch.float64)
    inputs = [[view.clone().requires_grad_() for view in rows] for _ in range(2)]
    first = together(torch.cat(inputs[0]), 3).unflatten(0, (3, 5))
    second = torch.stack([alone(view) for view in inputs[1]])
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    (first * weights).sum().backward()
    (second * weights).sum().backward()
    found = [view.grad for view in inputs[0]] + [each.grad for each in together.parameters()]
    wanted = [view.grad for view in inputs[1]] + [each.grad for each in alone.parameters()]
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(together.state_dict(), alone.state_dict(), rtol=1e-12, atol=1e-12)
    assert together[1].num_batches_tracked == (3 if training else 0)


def test_views_of_different_sizes_are_refused() -> None:
    for views in (2, 0):
        with pytest.raises(
            ValueError, match=f"5 rows cannot be {views} views of equal size: give each view as many rows"
        ):
            BarlowProjector(8, 12)(torch.randn(5, 8), views)
