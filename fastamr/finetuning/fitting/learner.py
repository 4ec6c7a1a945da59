"""What an update computes from its batch: features of the own bodies, then head and loss of the whole batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...distributed import rows_of_batch, total
from ...models import ActionClassifier
from .labelled_clips import LabelledBatch

Objective = Callable[[LabelledBatch, Tensor], Tensor]
"""Loss of a batch, a scalar, from the batch and the pooled features ``(B, F)`` of all its clips."""


class Learner(nn.Module):
    """A classifier that trains: its loss of a batch.

    Several processes share the encoder's work alone: the features of all clips are brought together (a sum, as each
    process holds zeros for the clips of others), and each computes the same head, BatchNorm and loss over the whole
    batch. So the result is that of one process.

    Args:
        classifier: the classifier.
        objective: None takes the classifier's loss, with mix-up where the batch has partners.
    """

    def __init__(self, classifier: ActionClassifier, objective: Objective | None = None) -> None:
        super().__init__()
        self.classifier, self._objective = classifier, objective

    def forward(self, batch: LabelledBatch, seed: Tensor | None = None) -> Tensor:
        """The loss, a float32 scalar; drop path follows the seed, ``(2,)`` or longer, int64."""
        features = all_features(self.classifier, batch, seed)
        if self._objective is not None:
            return self._objective(batch, features)
        return _class_loss(self.classifier, batch, features)


def all_features(classifier: ActionClassifier, batch: LabelledBatch, seed: Tensor | None = None) -> Tensor:
    """Return the pooled features of all clips of a batch ``(B, F)``, in several processes those of all of them.

    Args:
        classifier: the classifier.
        batch: the batch.
        seed: ``(2,)`` or longer, int64, of drop path; None draws it.
    """
    first, _ = batch.rows
    if seed is not None:
        seed = torch.cat([seed[:2], torch.full_like(seed[:1], first)])
    with rows_of_batch(*batch.rows):
        features = classifier.features(
            batch.clips,
            valid=batch.valid,
            owner=batch.owner,
            count=len(batch.labels),
            partial=True,
            seed=seed,
        )
    return total(features)


def batch_loss(learner: nn.Module, batch: LabelledBatch, seed: Tensor) -> Tensor:
    """Return the loss of a batch: the ``compute`` of :class:`fastamr.training.PretrainStep`.

    Args:
        learner: a :class:`Learner`.
        batch: of :class:`~fastamr.finetuning.fitting.labelled_clips.LabelledClips`.
        seed: of drop path.
    """
    return learner(batch, seed)


def _class_loss(classifier: ActionClassifier, batch: LabelledBatch, features: Tensor) -> Tensor:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, classifier.label_smoothing, batch.counted)

    if batch.partner is None or batch.share is None:
        return loss(head_logits(classifier.head, features, batch.counted), batch.labels)
    other = batch.partner
    mixed = torch.lerp(features.index_select(0, other), features, batch.share)
    logits = head_logits(classifier.head, mixed, batch.counted)
    others = batch.labels.index_select(0, other)
    return torch.lerp(loss(logits, others), loss(logits, batch.labels), batch.share)


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, counted: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over the clips that count, a float32 scalar.

    Args:
        logits: ``(B, classes)``.
        labels: ``(B,)`` int64.
        label_smoothing: share of the target that is spread over all classes.
        counted: ``(B,)``, 1 where a clip counts, else 0; None = all do.
    """
    if counted is None:
        return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    each = functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="none")
    return counted_mean(each, counted)


def counted_mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean of ``values (B,)`` over the clips that count, see :func:`cross_entropy`."""
    return values.mean() if counted is None else (values * counted).sum() / counted.sum()


def head_logits(head: nn.Sequential, features: Tensor, counted: Tensor | None = None) -> Tensor:
    """Apply a classifier's head ``(B, F)`` to ``(B, classes)``; its BatchNorm passes clips over that do not count.

    Args:
        head: linear layers, :class:`torch.nn.BatchNorm1d` and the like.
        features: the pooled features.
        counted: see :func:`cross_entropy`.
    """
    for layer in head:
        if counted is not None and isinstance(layer, nn.BatchNorm1d) and layer.training:
            features = _counted_norm(layer, features, counted)
        else:
            features = layer(features)
    return features


def _counted_norm(norm: nn.BatchNorm1d, features: Tensor, counted: Tensor) -> Tensor:
    """As the BatchNorm in training, with the mean and variance of the clips that count."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    values, weight = features.float(), counted[:, None]
    count = counted.sum()
    mean = (values * weight).sum(0) / count
    centred = values - mean
    variance = (centred.square() * weight).sum(0) / count
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)
    found = centred * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias
    return found.to(features.dtype)
