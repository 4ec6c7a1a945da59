"""The kNN probe that runs now and then during pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..data import PackedSkeletons, Split
    from ..data.joining import Gathered
    from ..models import SkeletonModel


class HeldOut(NamedTuple):
    """A data set that a run never trains on.

    Attributes:
        name: of the set.
        data: pre-processed as the training data is.
        split: whose halves a probe compares; None = the set has none that could be meant.
    """

    name: str
    data: PackedSkeletons
    split: str | None


class ProbeSet(NamedTuple):
    """The clips of a probe, all with a label.

    Attributes:
        name: of the data set; None = all training sets together.
        data: what the clips belong to.
        train: ``(N,)`` bool, the clips that vote.
        test: ``(N,)`` bool, the clips that are recognised.
    """

    name: str | None
    data: PackedSkeletons
    train: Tensor
    test: Tensor


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


def probe_sets(gathered: Gathered, held_out: Sequence[HeldOut]) -> tuple[list[ProbeSet], list[str]]:
    """Return what is probed, and a line for each set that is not.

    All training sets together are the first probe, under no name; where there are several sets, each that has labelled
    clips in both halves of the split is one more, and so is each held-out set.

    Raises:
        ValueError: nothing can be probed, see :func:`check_probe`.
    """
    data, names = gathered.data, gathered.names
    found, notes = [], []
    if len(names) + len(held_out) > 1:
        every = [(name, data, gathered.split, gathered.clip_set == place) for place, name in enumerate(names)]
        every += [(*one, torch.ones(one.data.num_clips, dtype=torch.bool)) for one in held_out]
        for name, whole, split, own in every:
            halves = _labelled(whole, split, own)
            if halves is None:
                where = "no split" if split is None else f"split {split!r}"
                notes.append(
                    f"{name} is not probed: it has no labelled clips in both halves of a split ({where})"
                )
            else:
                found.append(ProbeSet(name, whole, *halves))
    together = _labelled(data, gathered.split, gathered.clip_set >= 0)
    if together is not None:
        found.insert(0, ProbeSet(None, data, *together))
    if not found:
        check_probe(data, gathered.split)
    return found, notes


def _labelled(data: PackedSkeletons, split: str | None, own: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the labelled clips of both halves among ``own``, or None where one of them is empty."""
    if split is None or split not in data.splits:
        return None
    halves, own = data.split(split), own & (data.labels.cpu() >= 0)
    train, test = (half.cpu() & own for half in (halves.train, halves.test))
    return (train, test) if bool(train.any()) and bool(test.any()) else None


def knn_probe(
    model: SkeletonModel, sets: Sequence[ProbeSet], *, batch_size: int = 256, pooling: str = "mean"
) -> dict[str | None, float]:
    """Return the cosine 1-NN accuracy of the model's frozen features by the sets' names, in percent.

    Features are computed once for all sets of one data. The random state and the model's training mode are left as
    they were.

    Args:
        model: the model.
        sets: what is probed; sets of one data follow one another.
        batch_size: body sequences in a batch.
        pooling: of the tokens, see :meth:`fastamr.models.SkeletonModel.features`.
    """
    from ..features.extract import extract_features
    from ..probes.knn import knn_accuracy

    training = model.training
    accuracies, features, whose = dict[str | None, float](), torch.empty(0), None
    with torch.random.fork_rng():
        try:
            for one in sets:
                if one.data is not whose:
                    features = extract_features(model, one.data, batch_size=batch_size, pooling=pooling)
                    whose = one.data
                labels, train, test = (
                    each.to(features.device) for each in (one.data.labels, one.train, one.test)
                )
                accuracies[one.name] = knn_accuracy(
                    features[train], labels[train], features[test], labels[test], k=1
                )
        finally:
            model.train(training)
    return accuracies
