"""The probes of a row of experiments/results.py, and their features, kept so that they can be run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fastamr.data import PackedSkeletons
from fastamr.evaluation import labelled_split, probe_features
from fastamr.evaluation.protocols.frozen import score
from fastamr.features.cache import read_features, write_features
from fastamr.probes import linear_probe
from fastamr.probes.linear_probe import NTU_UPDATES

PROBES = ("linear", "linear_ntu", "logistic", "knn_1", "knn_20")


def probe_splits(
    features: torch.Tensor, data: PackedSkeletons, splits: Sequence[str], seed: int, *, scaled: bool = False
) -> dict[str, Any]:
    """Return the accuracies of :data:`PROBES` by split.

    ``linear`` is AMR's protocol as it is, 100 epochs; ``linear_ntu`` the same for as many updates as these epochs have
    on NTU-60. Both tell beside the accuracy the loss that training ended with.

    Args:
        features: ``(N, D)`` of the clips.
        data: the clips, with labels.
        splits: names of splits.
        seed: of the linear probes.
        scaled: standardize the features for every probe (raw coordinates).
    """
    found: dict[str, Any] = {}
    for split in splits:
        train, test = labelled_split(data, split)
        found[split] = probe_features(
            [features], data.labels, (train, test), seeds=[seed], standardize_all=scaled
        )
        sets = features[train], data.labels[train], features[test], data.labels[test]
        longer = linear_probe(*sets, min_updates=NTU_UPDATES, standardize=scaled, seed=seed)
        found[split]["linear_ntu"] = score([longer.accuracy]) | {"train_loss": [longer.train_loss]}
    return found


def keep_features(folder: Path, key: str, features: torch.Tensor) -> None:
    """Write a run's features; a folder that cannot be written is told by a warning."""
    write_features(folder / f"{key}.safetensors", features)


def has_features(folder: Path | None, key: str) -> bool:
    """Return whether a folder holds a run's features."""
    return folder is not None and (folder / f"{key}.safetensors").is_file()


def kept_features(folder: Path, key: str, clips: int) -> torch.Tensor:
    """Return a run's ``(clips, D)`` features.

    Raises:
        ValueError: the file is damaged, or of another number of clips.
    """
    path = folder / f"{key}.safetensors"
    features = read_features(path, clips)
    if features is None:
        raise ValueError(f"{path} does not hold the features of {clips} clips: delete it and repeat the run")
    return features


def is_complete(record: dict[str, Any]) -> bool:
    """Return whether a line of the results has all probes."""
    return all(probe in scores for scores in record["results"].values() for probe in PROBES)
