"""Joint, bone and motion streams: each encoder's class scores, and their weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...distributed import World
from ...features.baselines import random_encoder, raw_features
from ...features.clip_batches import ClipBatches
from ...features.splits import labelled_split
from ...finetuning.finetune import FinetuneConfig, class_scores, finetune
from ...probes.checks import percent_equal
from ...probes.knn import knn_scores
from ...probes.linear_probe import fit_linear, logistic_scores, standardize_features
from .frozen import Scores, encoder_rows, half_sets, help_extract, score
from .supervised import recipes

if TYPE_CHECKING:
    from ...data import PackedSkeletons
    from ...models import SkeletonModel

FUSED = ("all", "knn", "linear", "finetune")
"""Protocols whose class scores can be fused."""

ClassScores = dict[str, list[Tensor] | None]
"""For each probe and seed the probabilities ``(M, classes)`` of the test clips; None where a probe cannot run."""


class EncodedStream(NamedTuple):
    """An encoder and the data as it was pre-trained on.

    Attributes:
        name: of the stream, for example ``bone``.
        model: the encoder.
        data: pre-processed as for its training; clips, labels and splits are the same for all streams.
    """

    name: str
    model: SkeletonModel
    data: PackedSkeletons


def fuse_scores(scores: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Return the weighted sum of class scores.

    Args:
        scores: ``(M, classes)`` for each stream.
        weights: one a stream; None = all 1 (choice: the field also uses 0.6, 0.6 and 0.4 for joint, bone, motion).

    Raises:
        ValueError: another number of weights, or shapes that differ.
    """
    weights = weights or [1.0] * len(scores)
    if len(weights) != len(scores) or not scores:
        raise ValueError(f"weights has {len(weights)} entries for {len(scores)} streams, expected one each")
    if any(one.shape != scores[0].shape for one in scores):
        raise ValueError(
            f"scores have shapes {[tuple(one.shape) for one in scores]}, expected the same clips and classes"
        )
    total = torch.zeros_like(scores[0], dtype=torch.float64)
    for one, weight in zip(scores, weights, strict=True):
        total += weight * one.double().to(total.device)
    return total


def compare_streams(
    streams: Sequence[EncodedStream],
    split: str = "official",
    *,
    protocol: str = "linear",
    seeds: Sequence[int] = (0,),
    weights: Sequence[float] | None = None,
    standardize: bool = False,
    min_updates: int = 0,
    raw_data: PackedSkeletons | None = None,
    config: FinetuneConfig | None = None,
    caches: Sequence[str | Path | None] = (),
    bodies: str = "existing",
    pooling: str = "mean",
    batch_size: int = 256,
    progress: Callable[[str], None] | None = None,
    world: World | None = None,
) -> tuple[dict[str, Scores], dict[str, dict[str, Scores]]]:
    """Evaluate encoders of several streams, and the sum of their scores, beside fused baselines.

    What is added are class probabilities, so that no stream outweighs the others by the scale of its features
    (choice): of the linear layer, of logistic regression, the shares of 20 neighbours' votes, or of fine-tuned
    classifiers.

    Args:
        streams: encoders and their data.
        split: the split's name.
        protocol: one of :data:`FUSED`.
        seeds: of the probes and of the random encoders' weights.
        weights: see :func:`fuse_scores`.
        standardize: scale the encoders' features for the linear probe by the training clips' statistics.
        min_updates: of the linear probe of every row, see :func:`linear_probe`.
        raw_data: the data of the raw baseline, before pre-processing; None = the first stream's.
        config: the recipe of fine-tuning; None takes the defaults.
        caches: folders of cached features, one a stream, or none at all.
        bodies: see :func:`extract_features`.
        pooling: of the tokens in frozen features, see :func:`extract_features`.
        batch_size: body sequences encoded at a time.
        progress: called with a line of text now and then; None = silent.
        world: processes that share the extraction; the first one alone probes, the others return nothing.

    Returns:
        The fused scores by row (``raw``, which is one set of coordinates and not fused, ``input``, ``random``,
        ``encoder``), and each stream's own by its name and row. Fine-tuning has the last two rows.

    Raises:
        ValueError: as :func:`labelled_split`, :func:`extract_features` and :func:`finetune`.
    """
    halves = labelled_split(streams[0].data, split)
    settings = [
        {"bodies": bodies, "pooling": pooling, "batch_size": batch_size, "cache": cache, "world": world}
        for cache in caches or [None] * len(streams)
    ]
    if world is not None and not world.first:
        for stream, extraction in zip(streams, settings, strict=True):
            help_extract(encoder_rows(stream.model, stream.data, seeds, **extraction))
        return {}, {}
    labels = streams[0].data.labels
    truth = labels[halves[1]].cpu()

    def scored(found: ClassScores) -> Scores:
        return {
            probe: None
            if seeded is None
            else score([percent_equal(one.argmax(1).cpu(), truth) for one in seeded])
            for probe, seeded in found.items()
        }

    names = _names(streams)
    own: dict[str, dict[str, ClassScores]] = {}
    for place, stream in enumerate(streams):
        if protocol == "finetune":
            own[names[place]] = _finetuned(stream, halves, seeds, config, bodies, names[place], progress)
        else:
            layer = {"standardize": standardize, "min_updates": min_updates}
            own[names[place]] = _probed(stream, halves, protocol, seeds, layer, settings[place])
    results: dict[str, Scores] = {}
    if protocol != "finetune":
        features = [raw_features(streams[0].data if raw_data is None else raw_data)]
        raw = _probe(features, labels, halves, protocol, seeds, standardize_all=True, min_updates=min_updates)
        results["raw"] = scored(raw)
    first = next(iter(own.values()))
    for row in first:
        results[row] = scored(_fused([found[row] for found in own.values()], weights))
    return results, {name: {row: scored(found) for row, found in rows.items()} for name, rows in own.items()}


def _names(streams: Sequence[EncodedStream]) -> list[str]:
    """Name the streams, those of one kind apart by a number."""
    names: list[str] = []
    for stream in streams:
        same = sum(one.name == stream.name for one in streams[: len(names)])
        names.append(stream.name if same == 0 else f"{stream.name} {same + 1}")
    return names


def _fused(found: Sequence[ClassScores], weights: Sequence[float] | None) -> ClassScores:
    """Fuse the scores of all streams, probe by probe and seed by seed; a single one serves all seeds."""
    fused: ClassScores = {}
    for probe in found[0]:
        seeded = [one[probe] for one in found]
        present = [one for one in seeded if one is not None]
        if len(present) < len(seeded):
            fused[probe] = None
        else:
            count = max(map(len, present))
            fused[probe] = [
                fuse_scores([one[place % len(one)] for one in present], weights) for place in range(count)
            ]
    return fused


def _probed(
    stream: EncodedStream,
    halves: tuple[Tensor, Tensor],
    protocol: str,
    seeds: Sequence[int],
    layer: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, ClassScores]:
    """Return the class scores of a stream's input, which is never standardized, random encoders and encoder."""
    return {
        row: _probe(
            make(),
            stream.data.labels,
            halves,
            protocol,
            seeds,
            **{**layer, "standardize": layer["standardize"] and row != "input"},
        )
        for row, make in encoder_rows(stream.model, stream.data, seeds, **settings).items()
    }


def _probe(
    features: Sequence[Tensor],
    labels: Tensor,
    halves: tuple[Tensor, Tensor],
    protocol: str,
    seeds: Sequence[int],
    *,
    standardize: bool = False,
    standardize_all: bool = False,
    min_updates: int = 0,
) -> ClassScores:
    """Run the probes of a protocol on features, one set for each seed or a single one for all."""
    sets = [each[:3] for each in half_sets(features, labels, halves, standardize_all)]
    found: ClassScores = {}
    if protocol in ("all", "knn"):
        found["knn_20"] = [knn_scores(*each, k=20) for each in sets]
    if protocol in ("all", "linear"):
        paired = [sets[place % len(sets)] for place in range(len(seeds))]
        found["linear"] = [
            _linear(*each, standardize, min_updates, seed) for each, seed in zip(paired, seeds, strict=True)
        ]
        try:
            found["logistic"] = [logistic_scores(*each) for each in sets]
        except ImportError:
            found["logistic"] = None
    return found


def _linear(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, standardize: bool, min_updates: int, seed: int
) -> Tensor:
    if standardize:
        train_x, test_x = standardize_features(train_x, test_x)
    return fit_linear(train_x, train_y, min_updates=min_updates, seed=seed).scores(test_x)


def _finetuned(
    stream: EncodedStream,
    halves: tuple[Tensor, Tensor],
    seeds: Sequence[int],
    config: FinetuneConfig | None,
    bodies: str,
    name: str,
    progress: Callable[[str], None] | None,
) -> dict[str, ClassScores]:
    """Return the class scores of a stream's fine-tuned encoder, and of the same trained from scratch."""
    device = next(stream.model.parameters()).device
    data = stream.data.to(device)
    batches = ClipBatches(data, stream.model.frames, bodies)
    test = halves[1].to(device).nonzero()[:, 0]
    found: dict[str, ClassScores] = {}
    for row, recipe in recipes(FinetuneConfig() if config is None else config).items():
        scores = []
        for seed in seeds:
            if progress is not None:
                progress(f"{name}, {row}, seed {seed}: fine-tuning")
            start = random_encoder(stream.model, seed) if row == "random" else stream.model
            result = finetune(start, data, halves, recipe, seed=seed, bodies=bodies)
            scores.append(class_scores(result.classifier, batches, test, recipe.batch_size))
        found[row] = {"finetune": scores}
    return found
