"""What a student learns from its teacher: soft labels and features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.to_body import common_joints
from ..models import ActionClassifier
from ..nn import initialize
from .fitting.labelled_clips import LabelledBatch
from .fitting.learner import all_features, counted_mean, cross_entropy, head_logits

if TYPE_CHECKING:
    from ..data import PackedSkeletons


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
        labelled: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a float32 scalar.

        The cross-entropy is a mean over the labelled clips, the rest one over all.

        Args:
            logits: ``(B, classes)`` of the student.
            features: ``(B, F_student)``.
            labels: ``(B,)`` int64; of a clip without a label anything.
            teacher_logits: ``(B, classes)``.
            teacher_features: ``(B, F_teacher)``.
            counted: ``(B,)``, 1 where a clip counts, else 0; None = all do.
            labelled: ``(B,)`` bool, clips with a label, of which at least one counts; None = all are.
        """
        told = counted
        if labelled is not None:
            told = labelled.float() if counted is None else labelled * counted
            labels = torch.where(labelled, labels, 0)
        hard = cross_entropy(logits, labels, self.label_smoothing, told)
        loss = (1 - self.soft) * hard
        if self.soft > 0:
            loss = loss + self.soft * soft_label_loss(logits, teacher_logits, self.temperature, counted)
        if self.projection is not None:
            projected = self.projection(features)
            loss = loss + self.feature * feature_loss(projected, teacher_features, counted=counted)
        return loss


class Teaching(nn.Module):
    """Loss of a student beside its teacher: both see the same crop and rotation of every clip (Beyer et al. 2022).

    Args:
        student: it learns.
        teacher: it does not.
        unlabelled: whether batches hold clips of label -1, which learn from the teacher alone.
        temperature, soft, feature: see :class:`DistillationLoss`.
    """

    def __init__(
        self,
        student: ActionClassifier,
        teacher: ActionClassifier,
        *,
        unlabelled: bool,
        temperature: float,
        soft: float,
        feature: float,
    ) -> None:
        super().__init__()
        self.criterion = DistillationLoss(
            _width(student),
            _width(teacher),
            temperature=temperature,
            soft=soft,
            feature=feature,
            label_smoothing=student.label_smoothing,
        )
        self._unlabelled = unlabelled
        # In a tuple, so that their parameters are not this module's.
        self._pair = student, teacher.eval()

    def forward(self, batch: LabelledBatch, features: Tensor) -> Tensor:
        """Return the loss of a batch, a float32 scalar, from the student's features ``(B, F)``."""
        student, teacher = self._pair
        with torch.no_grad():
            known = all_features(teacher, batch)
            wanted = teacher.head(known)
        logits = head_logits(student.head, features, batch.counted)
        labelled = batch.labels >= 0 if self._unlabelled else None
        return self.criterion(logits, features, batch.labels, wanted, known, batch.counted, labelled)


def _width(classifier: ActionClassifier) -> int:
    """F, the features that a classifier's head takes."""
    return next(layer.in_features for layer in classifier.head if isinstance(layer, nn.Linear))


@contextlib.contextmanager
def reading(
    mixed: PackedSkeletons | None, student: ActionClassifier, teacher: ActionClassifier
) -> Iterator[None]:
    """Let a student and its teacher take batches of fixed shapes, and clips of other skeletons than the labelled ones.

    Args:
        mixed: the clips, where some are not of the labelled data; None = all are.
        student: of layout ``body`` it takes the joints that all clips have, or those that each shows.
        teacher: the same.
    """
    pair = (student, teacher)
    before = [one.source_joints for one in pair]
    for one in pair:
        one.encoder.fixed_shapes = True
        if mixed is not None:
            one.source_joints = common_joints(mixed)
    try:
        yield
    finally:
        for one, joints in zip(pair, before, strict=True):
            one.source_joints, one.encoder.fixed_shapes = joints, False


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
