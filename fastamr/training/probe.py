"""The kNN probe that runs now and then during pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..data import PackedSkeletons, Split
    from ..models import SkeletonModel


def check_probe(data: PackedSkeletons, split: str | None) -> Split:
    """Return the split that a probe compares clips of, before the run starts.

    Raises:
        ValueError: there is no split, or no labelled clip in one of its halves.
    """
    if split is None:
        raise ValueError(
            f"probe_every needs a split with labels, none is named, and the data has {list(data.splits) or 'none'}: "
            "pass --split, or set probe_every 0"
        )
    halves = data.split(split)
    labelled = data.labels >= 0
    for name, mask in (("training", halves.train), ("test", halves.test)):
        if not bool((mask & labelled).any()):
            raise ValueError(
                f"probe_every needs labelled {name} clips, and split {split!r} has none: set probe_every 0"
            )
    return halves


def check_probe_pooling(model: SkeletonModel, pooling: str) -> None:
    """Raise ``ValueError`` where a model does not allow the pooling of a probe, before the run starts."""
    if pooling != "mean":
        model.check_pooling(pooling)


def knn_probe(
    model: SkeletonModel,
    data: PackedSkeletons,
    split: Split,
    *,
    batch_size: int = 256,
    pooling: str = "mean",
) -> float:
    """Return the cosine 1-NN accuracy of the model's frozen features, in percent.

    The random state and the model's training mode are left as they were.

    Args:
        model: the model.
        data: the pre-processed data.
        split: training and test clips; clips without a label are left out.
        batch_size: body sequences in a batch.
        pooling: of the tokens, see :meth:`fastamr.models.SkeletonModel.features`.
    """
    from ..features.extract import extract_features
    from ..probes.knn import knn_accuracy

    training = model.training
    with torch.random.fork_rng():
        try:
            features = extract_features(model, data, batch_size=batch_size, pooling=pooling)
        finally:
            model.train(training)
    labels = data.labels.to(features.device)
    train, test = ((mask.to(labels.device) & (labels >= 0)) for mask in (split.train, split.test))
    return knn_accuracy(features[train], labels[train], features[test], labels[test], k=1)
