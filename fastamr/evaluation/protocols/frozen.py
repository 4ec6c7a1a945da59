"""Which probes an evaluation runs, and the comparison of an encoder with its baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...distributed import World
from ...errors import check_name
from ...features.baselines import input_features, random_encoder, raw_features
from ...features.extract import extract_features
from ...features.splits import labelled_split
from ...probes.knn import knn_accuracy
from ...probes.linear_probe import linear_probe, logistic_regression, standardize_features
from ...probes.retrieval import mean_average_precision

if TYPE_CHECKING:
    from ...data import PackedSkeletons
    from ...models import SkeletonModel

# On frozen features (here), by training the encoder (``supervised.py``), and on other data.
FROZEN = ("all", "knn", "linear", "retrieval")
SUPERVISED = ("finetune", "semi")
PROTOCOLS = (*FROZEN, *SUPERVISED, "transfer", "detection")

Scores = dict[str, Any]
"""Probe name -> ``{"accuracy": mean percent, "per_seed": [percent, ...]}``, or None where it cannot run."""


def probe_features(
    features: Sequence[Tensor],
    labels: Tensor,
    halves: tuple[Tensor, Tensor],
    *,
    protocol: str = "all",
    seeds: Sequence[int] = (0,),
    standardize: bool = False,
    standardize_all: bool = False,
    min_updates: int = 0,
) -> Scores:
    """Run the probes of a protocol.

    Args:
        features: ``(N, D)`` for each seed; a single one serves all seeds.
        labels: ``(N,)`` int64.
        halves: ``(N,)`` masks of training and test clips.
        protocol: ``"knn"`` (cosine 1-NN and weighted 20-NN), ``"linear"`` (AMR's protocol and logistic
            regression), ``"all"`` of these, or ``"retrieval"`` (1-NN, 20-NN and mean average precision).
        seeds: of the linear probe.
        standardize: scale the features for the linear probe, see :func:`linear_probe`.
        standardize_all: scale them for every probe (the raw baseline).
        min_updates: of the linear probe, see :func:`linear_probe`.

    Returns:
        Scores by probe. Logistic regression is None where scikit-learn is absent.

    Raises:
        ValueError: an unknown protocol, or features that do not fit.
    """
    check_name("protocol", protocol, FROZEN)
    sets = half_sets(features, labels, halves, standardize_all)
    scores: Scores = {}
    if protocol in ("all", "knn", "retrieval"):
        for k in (1, 20):
            scores[f"knn_{k}"] = score([knn_accuracy(*each, k=k) for each in sets])
    if protocol == "retrieval":
        scores["map"] = score([mean_average_precision(*each) for each in sets])
    if protocol in ("all", "linear"):
        paired = [sets[place % len(sets)] for place in range(len(seeds))]
        results = [
            linear_probe(*each, standardize=standardize, min_updates=min_updates, seed=seed)
            for each, seed in zip(paired, seeds, strict=True)
        ]
        scores["linear"] = score([result.accuracy for result in results]) | {
            "best_on_test": [result.best_accuracy for result in results]
        }
        try:
            scores["logistic"] = score([logistic_regression(*each) for each in sets])
        except ImportError:
            scores["logistic"] = None
    return scores


def half_sets(
    features: Sequence[Tensor], labels: Tensor, halves: tuple[Tensor, Tensor], standardize: bool
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return training features and labels, test features and labels for each of some features ``(N, D)``."""
    sets = []
    for one in features:
        # Labels and masks of the data may be on another device than the features.
        pair = [one[half.to(one.device)] for half in halves]
        x, tested = standardize_features(*pair) if standardize else pair
        train_y, test_y = (labels[half].to(one.device) for half in halves)
        sets.append((x, train_y, tested, test_y))
    return sets


def encoder_rows(
    model: SkeletonModel, data: PackedSkeletons, seeds: Sequence[int], **extraction: Any
) -> dict[str, Callable[[], list[Tensor]]]:
    """What makes the features of an encoder's input, of random encoders (one a seed) and of the encoder."""
    return {
        "input": lambda: [input_features(data)],
        "random": lambda: [
            extract_features(random_encoder(model, seed), data, **extraction) for seed in seeds
        ],
        "encoder": lambda: [extract_features(model, data, **extraction)],
    }


def help_extract(rows: Mapping[str, Callable[[], object]]) -> None:
    """Take part in the extraction of features, in the order of the rows, for the first process to probe them."""
    for row, make in rows.items():
        if row not in ("raw", "input"):  # which the first process makes alone
            make()


def score(values: list[float]) -> dict[str, Any]:
    """Return the entry of a probe in :data:`Scores` from the percentages of the seeds."""
    return {"accuracy": sum(values) / len(values), "per_seed": values}


def compare(
    model: SkeletonModel,
    data: PackedSkeletons,
    split: str = "official",
    *,
    protocol: str = "all",
    seeds: Sequence[int] = (0,),
    standardize: bool = False,
    min_updates: int = 0,
    raw_data: PackedSkeletons | None = None,
    cache: str | Path | None = None,
    world: World | None = None,
    **extraction: Any,
) -> dict[str, Scores]:
    """Probe an encoder, the same encoder with random weights, and coordinates as such on one split.

    Args:
        model: the pre-trained encoder.
        data: packed data, pre-processed as for training.
        split: the split's name.
        protocol: see :func:`probe_features`.
        seeds: of the linear probe, and of the random encoder's weights.
        standardize: see :func:`linear_probe`.
        min_updates: of the linear probe of every row, see :func:`linear_probe`.
        raw_data: the data of the raw baseline, before pre-processing; None = ``data``.
        cache: folder of cached features, see :func:`extract_features`. Random encoders are cached too.
        world: processes that share the extraction; the first one alone probes, the others return nothing.
        extraction: further arguments of :func:`extract_features`.

    Returns:
        ``{"raw": ..., "input": ..., "random": ..., "encoder": ...}``: raw coordinates of the given data, the
        pre-processed coordinates that the encoder is given, the encoder with random weights, the encoder.

    Raises:
        ValueError: as :func:`labelled_split`, :func:`extract_features` and :func:`probe_features`.
    """
    check_name("protocol", protocol, FROZEN)
    if not seeds:
        raise ValueError("seeds is empty, expected at least one integer")
    halves = labelled_split(data, split)
    sources: dict[str, Callable[[], list[Tensor]]] = {
        "raw": lambda: [raw_features(data if raw_data is None else raw_data)],
        **encoder_rows(model, data, seeds, cache=cache, world=world, **extraction),
    }
    if world is not None and not world.first:
        help_extract(sources)
        return {}
    return {
        name: probe_features(
            make(),
            data.labels,
            halves,
            protocol=protocol,
            seeds=seeds,
            standardize=standardize and name not in ("raw", "input"),
            standardize_all=name == "raw",
            min_updates=min_updates,
        )
        for name, make in sources.items()
    }
