"""The labelled data of a command: files joined, pre-processed for the model, and what a person should know of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..data.joining import Gathered, choose_split, gather, open_sets
from ..features.extract import check_fit, model_channels, untrained_note
from ..models import ActionClassifier
from ..progress import say

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel


def prepare_data(
    model: SkeletonModel | ActionClassifier,
    sources: list[str],
    steps: Any,
    given: PackedSkeletons | None,
    split: str | None = None,
) -> PackedSkeletons:
    """Load the data, or take what is given, with its split, and apply the steps that it lacks."""
    sets, names = (open_sets(sources), sources) if given is None else ([given], ["the data"])
    split = None if split is None else choose_split(split, sets)
    layout, channels = _encoder(model).layout, model_channels(_encoder(model))
    return _fitting(model, gather(sets, names, steps, split=split, layout=layout, channels=channels)).data


def gather_data(
    model: SkeletonModel | ActionClassifier,
    config: Any,
    steps: Any,
    given: PackedSkeletons | None,
) -> Gathered:
    """Load the data of a configuration, or take what is given, with its split, and apply the steps that it lacks.

    Args:
        model: what the data is for; its body size is what that of the data is compared with.
        config: has ``data``, ``split``, ``label_numbers``, and perhaps ``train_on``.
        steps: the pre-processing of the model's training.
        given: data in memory instead of the files that the configuration names.

    Returns:
        The data; its ``split`` is None where the configuration asks for all clips.

    Raises:
        ValueError: an unknown split, or data that do not fit together or the model.
        FileNotFoundError: no such data file.
    """
    sets, names = (open_sets(config.data), config.data) if given is None else ([given], ["the data"])
    everything = getattr(config, "train_on", "train") == "all"
    gathered = gather(
        sets,
        names,
        steps,
        split=None if everything else choose_split(config.split, sets),
        layout=_encoder(model).layout,
        channels=model_channels(_encoder(model)),
        unnamed="numbers" if config.label_numbers else "refuse",
        reference=model.body_size,
    )
    return _fitting(model, gathered)


def tell(sizes: str, notes: Sequence[str], warnings: Sequence[str]) -> None:
    """Print what a person should know of the data: warnings on standard error, the rest on standard output."""
    for line in (*notes, sizes):
        print(line, flush=True)
    for line in warnings:
        say(f"warning: {line}")


def _encoder(model: SkeletonModel | ActionClassifier) -> SkeletonModel:
    return model.encoder if isinstance(model, ActionClassifier) else model


def _fitting(model: SkeletonModel | ActionClassifier, gathered: Gathered) -> Gathered:
    check_fit(_encoder(model), gathered.data)
    note = untrained_note(_encoder(model), gathered.data)
    return gathered if note is None else dataclasses.replace(gathered, notes=(*gathered.notes, note))
