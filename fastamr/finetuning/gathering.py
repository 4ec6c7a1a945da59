"""The labelled data of a command: files joined, pre-processed for the model, and what a person should know of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data import concatenate
from ..data.joining import Gathered, choose_split, gather, open_sets, repeated
from ..data.packed.joint_order import in_order_of
from ..data.to_body import join_ready
from ..features.extract import check_fit, model_channels, untrained_note
from ..features.splits import training_split
from ..models import ActionClassifier
from ..probes.semi_supervised import labelled_subset
from ..progress import say
from ..skeleton import SkeletonLayout, is_body
from .fitting.unlabelled import Unlabelled

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel


@dataclasses.dataclass(frozen=True)
class TaughtClips:
    """What a student of a distillation learns from.

    Attributes:
        data: the labelled data set, and behind its clips those of the unlabelled files.
        labels: ``(N,)`` int64 of all clips of ``data``; -1 for every unlabelled one.
        train: ``(N,)`` int64, the labelled clips to train on.
        unlabelled: the clips beside them; None = none.
        fingerprint: of the unlabelled files; None = none.
        line: how many clips there are of each kind; None where all labelled training clips teach and no others do.
        notes: a line each on the unlabelled files.
        warnings: a line each on what is likely wrong.
    """

    data: PackedSkeletons
    labels: Tensor
    train: Tensor
    unlabelled: Unlabelled | None
    fingerprint: str | None
    line: str | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def labelled_halves(config: Any, gathered: Gathered) -> tuple[Tensor, Tensor]:
    """Return the labelled clips to train on and to test on ``(N,)`` bool: with ``label_share`` few train.

    Args:
        config: has ``label_share`` and ``label_seed``.
        gathered: the data.

    Raises:
        ValueError: as :func:`fastamr.features.splits.training_split`.
    """
    train, test = training_split(gathered.data, gathered.split)
    if config.label_share < 1:
        train = labelled_subset(gathered.data.labels, train, config.label_share, config.label_seed)
    return train, test


def taught_clips(
    model: SkeletonModel | ActionClassifier,
    config: Any,
    steps: Any,
    gathered: Gathered,
    halves: tuple[Tensor, Tensor],
    given: Sequence[PackedSkeletons] | None = None,
) -> TaughtClips:
    """Put the labelled clips of a distillation and those that teach without a label together.

    Args:
        model: the teacher.
        config: has ``unlabelled_data``, ``unlabelled_rest`` and ``unlabelled_share``.
        steps: the teacher's pre-processing.
        gathered: the labelled data, which went through it.
        halves: ``(N,)`` bool, see :func:`labelled_halves`.
        given: data in memory instead of the unlabelled files.

    Raises:
        ValueError: nothing is unlabelled where ``unlabelled_rest`` asks for it, or as :func:`gather_unlabelled`.
        FileNotFoundError: no such file.
    """
    (train, test), data, split, extra = halves, gathered.data, gathered.split, None
    half = torch.ones_like(train) if split is None else data.splits[split].train
    rest = (half & ~train) if config.unlabelled_rest else torch.zeros_like(train)
    if config.unlabelled_rest and not bool(rest.any()):
        raise ValueError(
            f"unlabelled_rest is set, and all {int(train.sum())} training clips have a label that counts: lower "
            f"label_share={config.label_share:g}, or omit it"
        )
    if config.unlabelled_data:
        extra = gather_unlabelled(model, config.unlabelled_data, steps, gathered, given)
        every = torch.ones(extra.data.num_clips, dtype=torch.bool)
        rest = torch.cat([rest, every if split is None else extra.data.splits[split].train])
        data = concatenate(
            join_ready([data, extra.data]), sources=("the labelled data", "the unlabelled data")
        )
    clips = train.nonzero()[:, 0]
    labels = torch.full_like(data.labels, -1)
    labels[clips] = gathered.data.labels[clips]
    places = rest.nonzero()[:, 0]
    own = int((places < gathered.data.num_clips).sum())
    known = int((half & (gathered.data.labels >= 0)).sum())
    line = (
        f"split {split!r}: {len(clips)} of {known} labelled training clips teach by their label, {len(places)} clips "
        f"without one ({own} of the data, {len(places) - own} of other files); {int(test.sum())} test clips"
    )
    return TaughtClips(
        data,
        labels,
        clips,
        Unlabelled(places, config.unlabelled_share) if len(places) else None,
        None if extra is None else extra.data.fingerprint(),
        line if len(places) or config.label_share < 1 else None,
        () if extra is None else extra.notes,
        () if extra is None else extra.warnings,
    )


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


def gather_unlabelled(
    model: SkeletonModel | ActionClassifier,
    sources: Sequence[str],
    steps: Any,
    labelled: Gathered,
    given: Sequence[PackedSkeletons] | None = None,
) -> Gathered:
    """Load files for their motion alone, pre-processed for a model; no clip of the result has a label.

    Args:
        model: what the data is for.
        sources: packed files, of the model's layout; of any for a model of layout ``body``.
        steps: the pre-processing of the model's training.
        labelled: the data that they stand beside. Files that have its split have its halves, the others train whole.
        given: data in memory instead of the files.

    Raises:
        ValueError: another layout than the model's, or other channels.
        FileNotFoundError: no such file.
    """
    layout = _encoder(model).layout
    sets = []
    for one, source in zip(given or open_sets(sources), sources, strict=True):
        _check_layout(one.layout, layout, in_order_of(one, layout) is not None, source)
        unknown = torch.full_like(one.labels, -1)
        sets.append(dataclasses.replace(one, labels=unknown, label_names=(), frame_labels=None))
    gathered = gather(
        sets,
        sources,
        steps,
        split=labelled.split,
        layout=layout,
        labelled=False,
        reference=model.body_size,
        channels=model_channels(_encoder(model)),
    )
    found = _fitting(model, gathered)
    both, names = [labelled.data, found.data], ("the labelled data", "the unlabelled data")
    twice = [text for text, grave in repeated(both, names, labelled.split) if grave]
    return dataclasses.replace(found, warnings=(*found.warnings, *twice))


def _check_layout(own: SkeletonLayout, wanted: SkeletonLayout, alike: bool, source: str) -> None:
    if not is_body(wanted) and not alike:
        raise ValueError(
            f"unlabelled_data {Path(source).name} has layout {own.name!r}, the teacher reads {wanted.name!r}: "
            f"pass data of that layout (fastamr convert IN OUT --layout {wanted.name}), or distil a teacher of layout "
            "'body', which reads any"
        )


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
