from __future__ import annotations

import math

import pytest
import torch

from fastamr.finetuning.distill_loss import DistillationLoss, feature_loss, soft_label_loss


def test_soft_labels_by_hand() -> None:
    # At t = 2 the teacher has odds 3 : 1, the student 1 : 1.
    teacher = torch.tensor([[2 * math.log(3.0), 0.0]])
    student = torch.tensor([[5.0, 5.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(soft_label_loss(student, teacher, 2.0)) == pytest.approx(4 * divergence, rel=1e-6)
    # The mean over clips, not the sum, and not the mean over classes.
    both = soft_label_loss(torch.cat([student, teacher]), torch.cat([teacher, teacher]), 2.0)
    assert float(both) == pytest.approx(2 * divergence, rel=1e-6)


def test_soft_labels_are_zero_where_both_agree_up_to_a_constant() -> None:
    logits = torch.randn(5, 4)
    assert float(soft_label_loss(logits + 3, logits, 4.0)) == pytest.approx(0, abs=1e-6)


def test_the_gradients_size_does_not_follow_the_temperature() -> None:
    """For small logits the gradient tends to that of half the squared difference over the classes (Hinton)."""
    teacher = 1e-2 * torch.randn(3, 4, dtype=torch.float64)
    teacher -= teacher.mean(1, keepdim=True)
    student = torch.zeros(3, 4, requires_grad=True)
    for temperature in (4.0, 16.0):
        (gradient,) = torch.autograd.grad(soft_label_loss(student, teacher, temperature), student)
        torch.testing.assert_close(gradient.double(), -teacher / 4 / 3, rtol=0.02, atol=1e-6)


def test_features_by_hand() -> None:
    student = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
    # Normalised (-1, 1) each; the teacher's are (-1, 1) and (1, -1).
    teacher = torch.tensor([[10.0, 50.0], [7.0, 5.0]])
    assert float(feature_loss(student, teacher, eps=0.0)) == pytest.approx((0 + 4) / 2)
    torch.manual_seed(1)
    x, y = torch.randn(6, 9), torch.randn(6, 9)
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(x, y, strict=True)])
    assert float(feature_loss(x, 5 * y + 2, eps=0.0)) == pytest.approx(
        float(2 * (1 - correlation).mean()), rel=1e-5
    )


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    (soft_label_loss(student, teacher, 4.0) + feature_loss(student, teacher)).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_the_whole_loss_is_the_weighted_sum() -> None:
    loss = DistillationLoss(3, 5, temperature=3.0, soft=0.7, feature=0.4, label_smoothing=0.1)
    logits, features, teacher = torch.randn(4, 6), torch.randn(4, 3), (torch.randn(4, 6), torch.randn(4, 5))
    labels = torch.tensor([0, 5, 2, 2])
    assert loss.projection is not None
    hard = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    expected = 0.3 * hard + 0.7 * soft_label_loss(logits, teacher[0], 3.0)
    expected = expected + 0.4 * feature_loss(loss.projection(features), teacher[1])
    torch.testing.assert_close(loss(logits, features, labels, *teacher), expected)


def test_parts_can_be_off() -> None:
    logits, features, teacher = torch.randn(4, 6), torch.randn(4, 3), (torch.randn(4, 6), torch.randn(4, 5))
    labels = torch.tensor([0, 5, 2, 2])
    hard = DistillationLoss(3, 5, soft=0.0, feature=0.0)
    assert list(hard.parameters()) == []
    torch.testing.assert_close(
        hard(logits, features, labels, *teacher), torch.nn.functional.cross_entropy(logits, labels)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0.0 must be positive"),
        ({"soft": 1.5}, r"soft=1.5 must be from 0"),
        ({"feature": -1.0}, r"feature=-1.0 must be zero or more"),
    ],
)
def test_wrong_options(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationLoss(3, 3, **options)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"student has shape \(2, 3\) and teacher \(2, 4\)"):
        soft_label_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"dtype torch.int64"):
        feature_loss(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"temperature=-1.0"):
        soft_label_loss(torch.zeros(2, 3), torch.zeros(2, 3), -1.0)
