"""The losses against their plain form in float64, values and gradients, and what each of them is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastamr.nn.self_distillation import prototypes as fast
from fastamr.reference import self_distillation as plain

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def scores(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * (2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1)


def targets(*shape: int, seed: int = 1) -> Tensor:
    return (scores(*shape, seed=seed) * 5).softmax(-1)


def agree(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], input: Tensor) -> None:
    """The same value and gradient in float64."""
    results = []
    for run in (one, other):
        leaf = input.clone().requires_grad_()
        value = run(leaf)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], **EXACT)


@pytest.mark.parametrize("rounds", [1, 3, 10])
@pytest.mark.parametrize("shape", [(6, 4), (4, 9), (1, 5), (5, 2)])
@pytest.mark.parametrize("temperature", [0.04, 1.0])
def test_sinkhorn_is_swavs(shape: tuple[int, int], rounds: int, temperature: float) -> None:
    found = fast.sinkhorn_targets(scores(*shape), temperature, rounds=rounds)
    torch.testing.assert_close(
        found, plain.sinkhorn_targets(scores(*shape), temperature, rounds=rounds), **EXACT
    )
    torch.testing.assert_close(found.sum(1), torch.ones(shape[0], dtype=torch.float64))


def test_sinkhorn_of_four_values_by_hand() -> None:
    """[[e, 1], [1, 1]]: columns to equal sums, then rows to 1."""
    e = torch.e
    first = 1 / (e + 1), 0.5
    rows = [[e * first[0], first[1]], [first[0], first[1]]]
    expected = torch.tensor([[value / sum(row) for value in row] for row in rows])
    found = fast.sinkhorn_targets(torch.tensor([[0.5, 0.0], [0.0, 0.0]]), 0.5, rounds=1)
    torch.testing.assert_close(found, expected)


def test_sinkhorn_shares_out_what_all_rows_prefer() -> None:
    """Every row likes prototype 0 most: a softmax gives it nearly everything, Sinkhorn its even share."""
    liked = scores(40, 8, scale=0.3)
    liked[:, 0] += 0.7
    assert (liked / 0.07).softmax(1)[:, 0].mean() > 0.9
    share = fast.sinkhorn_targets(liked, 0.07, rounds=50).mean(0)
    torch.testing.assert_close(share, torch.full((8,), 1 / 8, dtype=torch.float64), rtol=0.1, atol=0)


def test_rows_that_do_not_count_change_nothing() -> None:
    counted = torch.tensor([True, False, True, True, False])
    values = scores(5, 6)
    found = fast.sinkhorn_targets(values, 0.1, counted=counted)
    torch.testing.assert_close(found, plain.sinkhorn_targets(values, 0.1, counted=counted), **EXACT)
    torch.testing.assert_close(found[counted], fast.sinkhorn_targets(values[counted], 0.1), **EXACT)
    assert (found[~counted] == 0).all()
    nothing = fast.sinkhorn_targets(values, 0.1, counted=torch.zeros(5, dtype=torch.bool))
    assert (nothing == 0).all()


def test_sinkhorn_stands_scores_of_any_size() -> None:
    """Nothing overflows or divides by 0, also where a prototype is as far from all rows as float32 tells."""
    for scale in (1e-6, 1.0, 1e4):
        found = fast.sinkhorn_targets(scores(7, 5, scale=scale).float(), 0.04)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()
    far = scores(7, 5)
    far[:, 2] = -100
    assert torch.isfinite(fast.sinkhorn_targets(far.float(), 0.04)).all()


@pytest.mark.parametrize(("views", "shared"), [(2, 2), (5, 2), (4, 1), (3, 3)])
def test_class_loss_is_the_mean_over_pairs(views: int, shared: int) -> None:
    wanted = targets(3, shared, 7)
    agree(
        lambda x: fast.class_loss(x, wanted, 0.1),
        lambda x: plain.class_loss(x, wanted, 0.1),
        scores(3, views, 7),
    )


def test_class_loss_of_two_views_by_hand() -> None:
    student, teacher = scores(1, 2, 3), targets(1, 2, 3)
    crossed = [
        functional.cross_entropy(student[0, one][None] / 0.1, teacher[0, 1 - one][None]) for one in (0, 1)
    ]
    torch.testing.assert_close(fast.class_loss(student, teacher, 0.1), sum(crossed) / 2)


@pytest.mark.parametrize("counted", [[True] * 4, [True, False, False, True], [False] * 4])
def test_patch_loss_is_the_mean_over_counted_rows(counted: list[bool]) -> None:
    wanted, mask = targets(4, 6), torch.tensor(counted)
    agree(
        lambda x: fast.patch_loss(x, wanted, 0.1, mask),
        lambda x: plain.patch_loss(x, wanted, 0.1, mask),
        scores(4, 6),
    )


@pytest.mark.parametrize("shape", [(2, 3), (9, 4)])
def test_koleo_is_minus_the_log_of_the_nearest_distance(shape: tuple[int, int]) -> None:
    agree(fast.koleo_loss, plain.koleo_loss, scores(*shape))


def test_koleo_pushes_apart_and_leaves_equal_rows() -> None:
    corners = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(fast.koleo_loss(corners), -torch.tensor(2.0).sqrt().log())
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], requires_grad=True)
    fast.koleo_loss(rows).backward()
    moved = (rows - 0.01 * rows.grad).detach()
    assert fast.koleo_loss(moved) < fast.koleo_loss(rows)
    equal = torch.ones(3, 2, requires_grad=True)
    fast.koleo_loss(equal).backward()
    assert torch.equal(equal.grad, torch.zeros(3, 2))


def test_gradients_against_differences() -> None:
    wanted, mask = targets(4, 2, 3), torch.tensor([True, False, True, True])
    assert torch.autograd.gradcheck(
        lambda x: fast.class_loss(x, wanted, 0.5), scores(4, 3, 3).requires_grad_()
    )
    assert torch.autograd.gradcheck(
        lambda x: fast.patch_loss(x, wanted[:, 0], 0.5, mask), scores(4, 3).requires_grad_()
    )
    assert torch.autograd.gradcheck(fast.koleo_loss, scores(4, 3).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_scores_are_widened(dtype: torch.dtype) -> None:
    """Also under autocast: the results are those of the same scores in float32."""
    short, wanted = scores(4, 3, 8).to(dtype), targets(4, 2, 8).float()
    mask = torch.ones(4, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        found = (
            fast.sinkhorn_targets(short[:, 0], 0.1),
            fast.class_loss(short, wanted, 0.1),
            fast.patch_loss(short[:, 0], wanted[:, 0], 0.1, mask),
            fast.koleo_loss(short[:, 0]),
        )
    wide = short.float()
    expected = (
        plain.sinkhorn_targets(wide[:, 0], 0.1),
        plain.class_loss(wide, wanted, 0.1),
        plain.patch_loss(wide[:, 0], wanted[:, 0], 0.1, mask),
        plain.koleo_loss(wide[:, 0]),
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_prototypes_are_cosines() -> None:
    layer = fast.Prototypes(3, 5)
    rows = torch.randn(4, 3)
    expected = functional.cosine_similarity(rows[:, None], layer.weight[None], dim=-1)
    torch.testing.assert_close(layer(rows), expected)
    with torch.no_grad():
        layer.weight.mul_(7)
    torch.testing.assert_close(layer(3 * rows), expected)
