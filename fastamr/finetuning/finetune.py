"""Fine-tuning: the whole encoder and a head, trained on labelled clips."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..data.to_body import for_layout, source_layout
from ..distributed import World, add_up
from ..features.clip_batches import ClipBatches
from ..features.extract import check_fit, model_channels
from ..models import ActionClassifier
from ..probes.checks import percent_equal
from .fitting.classifier_step import FitSettings
from .fitting.fit import fit_classifier
from .fitting.keeping import FitKeeper
from .fitting.recipe import FinetuneConfig
from .training_data import describe_training

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel


class FinetuneResult(NamedTuple):
    """What fine-tuning reached.

    Attributes:
        accuracy: percent on the test clips after the last epoch: the result. NaN without test clips.
        train_loss: mean loss of the last epoch, nats.
        predicted: the class of each test clip.
        classifier: the trained classifier, in evaluation mode.
    """

    accuracy: float
    train_loss: float
    predicted: tuple[int, ...]
    classifier: ActionClassifier


def finetune(
    model: SkeletonModel,
    data: PackedSkeletons,
    halves: tuple[Tensor, Tensor],
    config: FinetuneConfig | None = None,
    *,
    seed: int = 0,
    bodies: str = "existing",
    progress: Callable[[str], None] | None = None,
    bar: str = "",
    head: Mapping[str, Tensor] | None = None,
    settings: FitSettings | None = None,
    keeper: FitKeeper | None = None,
) -> FinetuneResult:
    """Fine-tune a copy of an encoder on the training clips and test it after the last epoch.

    The features of the bodies of a clip are averaged, or put side by side, before the head, in training as in testing.

    Args:
        model: the encoder; it is left as it is. The work is done on its device.
        data: packed data, pre-processed as for the pre-training.
        halves: ``(N,)`` bool masks of the training and test clips, all labelled; there may be no test clip.
        config: the recipe; None takes the defaults.
        seed: fixes the head, the order of the clips, the augmentation and the drop-out. The global random state is
            left as it was.
        bodies: ``"existing"`` takes the bodies that a clip has, ``"field"`` the empty ones of two too, and
            ``"ordered"`` is the recipe's ``bodies="ordered"``.
        progress: called with a line of text ten times during the run; None = silent.
        bar: what stands before a progress bar on standard error; empty = no bar.
        head: weights that the head begins with, the ``state_dict`` of one of the recipe's form; None = fresh ones.
        settings: how updates are computed, and the processes that share them and the test; None takes the defaults.
        keeper: makes checkpoints and resumes from one, see :func:`fit_classifier`.

    Raises:
        ValueError: data that the model does not fit, or too few training clips for BatchNorm.
        FloatingPointError: the loss is not finite.
    """
    config = FinetuneConfig() if config is None else config
    if bodies == "ordered":
        config = dataclasses.replace(config, bodies=bodies)
    check_bodies(bodies, config)
    settings = FitSettings() if settings is None else settings
    check_fit(model, data)
    data = for_layout(data, model.layout, channels=model_channels(model))
    device = next(model.parameters()).device
    data = data.to(device)
    train, test = (half.to(device).nonzero()[:, 0] for half in halves)
    if config.hidden and min(len(train), config.batch_size) < 2:
        raise ValueError(
            f"{len(train)} training clips in batches of {config.batch_size}: the head's BatchNorm needs two clips in a "
            "batch; set hidden=0 or give more clips"
        )
    batches = ClipBatches(data, model.frames, bodies)
    classes = count_classes(data.labels[train])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        classifier = ActionClassifier(
            copy.deepcopy(model),
            classes,
            **config.head(),
            class_names=names_of(data, classes),
            steps=own_steps(data),
            training_data=describe_training(data, train),
            source=source_layout(data),
        )
        if head is not None:
            classifier.head.load_state_dict(head)
        loss = fit_classifier(
            classifier, batches, train, data.labels, config,
            seed=seed, settings=settings, keeper=keeper, progress=progress, bar=bar,
        )  # fmt: skip
    if not len(test):
        return FinetuneResult(math.nan, loss, (), classifier.eval())
    predicted = predict(classifier, batches, test, config.batch_size, settings.world)
    accuracy = percent_equal(predicted, data.labels[test])
    return FinetuneResult(accuracy, loss, tuple(predicted.tolist()), classifier)


def check_bodies(bodies: str, config: FinetuneConfig) -> None:
    """Raise ``ValueError`` where the empty bodies of the field would be put side by side with those that exist."""
    if bodies == "field" and config.bodies == "ordered":
        raise ValueError(
            "bodies='field' adds empty bodies to a mean, and the recipe's bodies='ordered' takes none: omit one of them"
        )


def predict(
    classifier: ActionClassifier,
    batches: ClipBatches,
    clips: Tensor,
    batch_size: int,
    world: World | None = None,
) -> Tensor:
    """Return the class of each clip ``(B,)`` int64; the classifier is in evaluation mode afterwards.

    Several processes take a part of the clips each, and all get all classes.
    """
    world = World() if world is None else world
    if world.size == 1:
        return class_scores(classifier, batches, clips, batch_size).argmax(1)
    own = clips.tensor_split(world.size)[world.rank]
    found = torch.zeros(len(clips), dtype=torch.float64, device=clips.device)
    if len(own):
        place = sum(len(part) for part in clips.tensor_split(world.size)[: world.rank])
        found[place : place + len(own)] = (
            class_scores(classifier, batches, own, batch_size).argmax(1).double()
        )
    add_up([found])
    return found.long()


def class_scores(
    classifier: ActionClassifier, batches: ClipBatches, clips: Tensor, batch_size: int
) -> Tensor:
    """Return each clip's class probabilities ``(B, classes)``; the classifier is in evaluation mode afterwards."""
    classifier.eval()
    found = []
    with torch.inference_mode():
        for part in clips.split(batch_size):
            batch = batches.test(part)
            found.append(classifier(batch.clips, valid=batch.valid, owner=batch.owner).softmax(1))
    return torch.cat(found)


def count_classes(labels: Tensor) -> int:
    """Return how many classes a classifier of these labels ``(N,)`` needs, at least 2."""
    return max(2, int(labels.max()) + 1)


def names_of(data: PackedSkeletons, classes: int) -> tuple[str, ...]:
    """Return the names of the first classes, or none where the data does not name them all."""
    return tuple(data.label_names[:classes]) if len(data.label_names) >= classes else ()


def own_steps(data: PackedSkeletons) -> tuple[dict[str, Any], ...]:
    """Return the pre-processing steps of a data set without the notes between them."""
    return tuple(step for step in data.steps if step["name"] != "note")
