"""What a student learns from its teacher: soft labels and features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..nn import initialize
from .fitting.learner import counted_mean, cross_entropy


def soft_label_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, counted: Tensor | None = None
) -> Tensor:
    """Temperature-scaled KL divergence of the student's classes from the teacher's (Hinton et al. 2015; ASMa).

    ``t^2 * mean over clips of sum_c p_c * (log p_c - log q_c)`` with ``p = softmax(teacher / t)`` and
    ``q = softmax(student / t)``. The factor keeps the size of the gradient when t changes.

    Args:
        student: ``(B, classes)`` logits.
        teacher: ``(B, classes)`` logits; no gradient reaches them.
        temperature: t, above 0; the larger, the more the small probabilities count.
        counted: ``(B,)``, 1 where a clip counts, else 0; None = all do.

    Returns:
        A float32 scalar, 0 where both agree.

    Raises:
        ValueError: other shapes, or a temperature that is not positive.
    """
    _check_pair("student", student, "teacher", teacher)
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive, for example 2.0")
    q = functional.log_softmax(student.float() / temperature, dim=1)
    p = functional.log_softmax(teacher.detach().float() / temperature, dim=1)
    divergence = functional.kl_div(q, p, reduction="none", log_target=True).sum(1)
    return temperature**2 * counted_mean(divergence, counted)


def feature_loss(
    student: Tensor, teacher: Tensor, eps: float = 1e-5, counted: Tensor | None = None
) -> Tensor:
    """Mean squared difference of features, each clip's features brought to mean 0 and variance 1 first.

    ``mean((n(student) - n(teacher))^2)`` with ``n(x) = (x - mean(x)) / sqrt(var(x) + eps)`` over the F features of a
    clip. FitNets (Romero et al. 2015) compare features as they are; the normalisation (choice) makes the loss
    independent of the teacher's scale: it is ``2 * (1 - correlation)``, from 0 to 4.

    Args:
        student: ``(B, F)``.
        teacher: ``(B, F)``; no gradient reaches it.
        eps: added to the variances.
        counted: ``(B,)``, 1 where a clip counts, else 0; None = all do.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: other shapes.
    """
    _check_pair("student", student, "teacher", teacher)
    width = student.shape[1:]
    normal = functional.layer_norm(student.float(), width, eps=eps)
    wanted = functional.layer_norm(teacher.detach().float(), width, eps=eps)
    return counted_mean(functional.mse_loss(normal, wanted, reduction="none").mean(1), counted)


class DistillationLoss(nn.Module):
    """``(1 - soft) * cross-entropy + soft * soft_label_loss + feature * feature_loss(projection(student), teacher)``.

    The projection, one linear layer, brings the student's features to the teacher's width; it learns with the student
    and is left out of the result (FitNets).

    Args:
        student_width: F of the student's features.
        teacher_width: F of the teacher's features.
        temperature: of the soft labels (choice: 2; the papers give none).
        soft: weight of the soft labels against the true ones, 0 to 1 (choice: 0.5).
        feature: weight of the features, 0 = no projection (choice: 0.2).
        label_smoothing: of the cross-entropy with the true labels.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        *,
        temperature: float = 2.0,
        soft: float = 0.5,
        feature: float = 0.2,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        check_distillation(temperature, soft, feature)
        self.temperature, self.soft, self.feature = temperature, soft, feature
        self.label_smoothing = label_smoothing
        self.projection: nn.Linear | None = None
        if feature > 0:
            self.projection = nn.Linear(student_width, teacher_width)
            self.projection.apply(initialize)

    def forward(
        self,
        logits: Tensor,
        features: Tensor,
        labels: Tensor,
        teacher_logits: Tensor,
        teacher_features: Tensor,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a float32 scalar.

        Args:
            logits: ``(B, classes)`` of the student.
            features: ``(B, F_student)``.
            labels: ``(B,)`` int64.
            teacher_logits: ``(B, classes)``.
            teacher_features: ``(B, F_teacher)``.
            counted: ``(B,)``, 1 where a clip counts, else 0; None = all do.
        """
        hard = cross_entropy(logits, labels, self.label_smoothing, counted)
        loss = (1 - self.soft) * hard
        if self.soft > 0:
            loss = loss + self.soft * soft_label_loss(logits, teacher_logits, self.temperature, counted)
        if self.projection is not None:
            projected = self.projection(features)
            loss = loss + self.feature * feature_loss(projected, teacher_features, counted=counted)
        return loss


def check_distillation(temperature: float, soft: float, feature: float) -> None:
    """Raise ``ValueError`` for an option of :class:`DistillationLoss` that is out of range."""
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive, for example 2.0")
    if not 0 <= soft <= 1:
        raise ValueError(f"soft={soft} must be from 0 (true labels only) to 1 (the teacher's only)")
    if feature < 0:
        raise ValueError(f"feature={feature} must be zero or more, for example 0.2")


def _check_pair(first: str, one: Tensor, second: str, other: Tensor) -> None:
    if one.ndim != 2 or one.shape != other.shape:
        raise ValueError(
            f"{first} has shape {tuple(one.shape)} and {second} {tuple(other.shape)}: expected one shape, (B, F)"
        )
    if not torch.is_floating_point(one):
        raise ValueError(f"{first} has dtype {one.dtype}, expected a floating-point tensor")
