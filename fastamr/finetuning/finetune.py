"""Fine-tuning: the whole encoder and a head, trained on labelled clips."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..features.clip_batches import ClipBatch, ClipBatches
from ..features.extract import check_fit
from ..models import ActionClassifier
from ..models.classifier import check_classifier
from ..nn.learning_rate import learning_rate
from ..probes.checks import percent_equal
from ..progress import Progress
from .training_data import describe_training

if TYPE_CHECKING:
    from ..data import PackedSkeletons
    from ..models import SkeletonModel

WARMUP_EPOCHS = 5


@dataclass(frozen=True)
class FinetuneConfig:
    """The recipe of fine-tuning; the defaults are those of MAMP's public code for NTU-60.

    AdamW with betas (0.9, 0.999). Pre-processing and augmentation are those of the pre-training.

    Attributes:
        epochs: passes over the training clips (paper: 100).
        batch_size: clips in an update, each with all its bodies (public code: 48).
        lr: highest learning rate of the head (public code: 5e-4; its NTU-60 scripts pass 3e-4).
        min_lr: learning rate of the head at the end (public scripts: 1e-5).
        warmup_epochs: epochs of linear warm-up; null = 5 (public code), or a fifth of the epochs where that is less.
        weight_decay: of AdamW, none on biases, norms and embeddings (public code: 0.05).
        layer_decay: learning rate of a layer over that of the next one (public code: 0.8).
        drop_path: of the last block, growing linearly from 0 (public code: 0.3).
        dropout: of the tokens (public code: 0.3).
        label_smoothing: of the cross-entropy (public code: 0.1).
        mixup: alpha of mix-up, 0 = off (public code). Choice: it mixes the pooled features of clips, because two
            clips may have different numbers of bodies.
        pooling: joints (public code) puts the joints' means over time side by side, mean averages all tokens.
        hidden: width of the head's hidden layer with BatchNorm, 0 = one linear layer (public code: 2048).
        crop: smallest and largest share of the frames that is kept (public code: 0.5 to 1).
        min_frames: frames that a crop keeps at least (public code: 64; lower for short clips).
        max_angle: bound of each Euler angle, in radians (public code: 0.3).
    """

    epochs: int = 100
    batch_size: int = 48
    lr: float = 5e-4
    min_lr: float = 1e-5
    warmup_epochs: float | None = None
    weight_decay: float = 0.05
    layer_decay: float = 0.8
    drop_path: float = 0.3
    dropout: float = 0.3
    label_smoothing: float = 0.1
    mixup: float = 0.0
    pooling: str = "joints"
    hidden: int = 2048
    crop: tuple[float, float] = (0.5, 1.0)
    min_frames: int = 64
    max_angle: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop", tuple(self.crop))
        check_classifier(2, self.pooling, self.hidden, self.dropout, self.drop_path, self.label_smoothing)
        for name in ("epochs", "batch_size", "lr", "min_frames"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("weight_decay", "mixup", "max_angle"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be zero or more")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"min_lr={self.min_lr} must be a number from 0 to lr={self.lr:g}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay} must be above 0 and at most 1, for example 0.8")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} must be at least 0 and below epochs={self.epochs}: "
                "omit it for a fifth at most"
            )
        if len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop={self.crop} must be two shares with 0 < smallest <= largest <= 1")

    def head(self) -> dict[str, Any]:
        """The options of :class:`fastamr.models.ActionClassifier`."""
        names = ("pooling", "hidden", "dropout", "drop_path", "label_smoothing")
        return {name: getattr(self, name) for name in names}

    @property
    def warmup(self) -> float:
        """Epochs of the warm-up."""
        return min(WARMUP_EPOCHS, self.epochs / 5) if self.warmup_epochs is None else self.warmup_epochs


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
) -> FinetuneResult:
    """Fine-tune a copy of an encoder on the training clips and test it after the last epoch.

    The features of the bodies of a clip are averaged before the head, in training as in testing.

    Args:
        model: the encoder; it is left as it is. The work is done on its device.
        data: packed data, pre-processed as for the pre-training.
        halves: ``(N,)`` bool masks of the training and test clips, all labelled; there may be no test clip.
        config: the recipe; None takes the defaults.
        seed: fixes the head, the order of the clips, the augmentation and the drop-out. The global random state is
            left as it was.
        bodies: ``"existing"`` averages the bodies that a clip has, ``"field"`` the empty ones of two too.
        progress: called with a line of text ten times during the run; None = silent.
        bar: what stands before a progress bar on standard error; empty = no bar.
        head: weights that the head begins with, the ``state_dict`` of one of the recipe's form; None = fresh ones.

    Raises:
        ValueError: data that the model does not fit, or too few training clips for BatchNorm.
    """
    config = FinetuneConfig() if config is None else config
    check_fit(model, data)
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
        )
        if head is not None:
            classifier.head.load_state_dict(head)
        loss = fit_classifier(
            classifier, batches, train, data.labels, config, seed=seed, progress=progress, bar=bar
        )
    if not len(test):
        return FinetuneResult(math.nan, loss, (), classifier.eval())
    predicted = predict(classifier, batches, test, config.batch_size)
    accuracy = percent_equal(predicted, data.labels[test])
    return FinetuneResult(accuracy, loss, tuple(predicted.tolist()), classifier)


def predict(classifier: ActionClassifier, batches: ClipBatches, clips: Tensor, batch_size: int) -> Tensor:
    """Return the class of each clip ``(B,)`` int64; the classifier is in evaluation mode afterwards."""
    return class_scores(classifier, batches, clips, batch_size).argmax(1)


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


def fit_classifier(
    classifier: ActionClassifier,
    batches: ClipBatches,
    clips: Tensor,
    labels: Tensor,
    config: FinetuneConfig,
    *,
    seed: int = 0,
    objective: Callable[[ClipBatch, Tensor, Tensor], Tensor] | None = None,
    extra: Sequence[nn.Parameter] = (),
    progress: Callable[[str], None] | None = None,
    bar: str = "",
) -> float:
    """Train a classifier in place on the clips of a data set.

    Args:
        classifier: the classifier, on the device of the data.
        batches: samples the clips.
        clips: ``(B,)`` int64, the clips to train on.
        labels: ``(N,)`` int64, of all clips of the data.
        config: the recipe.
        seed: fixes the order of the clips and the augmentation. The head's drop-out follows the global random state.
        objective: loss of a batch from the batch, its pooled features ``(B, F)`` and its labels ``(B,)``; None takes
            the classifier's, with the recipe's mix-up.
        extra: parameters of the objective, which learn with the head's rate.
        progress: called with a line of text ten times during the run; None = silent.
        bar: what stands before a progress bar on standard error; empty = no bar.

    Returns:
        The mean loss of the last epoch.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    # Batches of nearly one size instead of a small last one, which BatchNorm could not use.
    per_epoch = math.ceil(len(clips) / config.batch_size)
    if config.hidden and len(clips) < 2 * per_epoch:
        per_epoch = len(clips) // 2
    optimizer, schedule = _optimizer(classifier, config, extra, per_epoch)
    generator = torch.Generator().manual_seed(seed)
    key = torch.tensor([seed, 0], device=clips.device)
    classifier.train()
    mean, latest = math.nan, ""
    with Progress(config.epochs * per_epoch, bar, show=bool(bar)) as shown:
        for epoch in range(1, config.epochs + 1):
            order = torch.randperm(len(clips), generator=generator).to(clips.device)
            loss_sum = torch.zeros((), device=clips.device)
            for rows in order.tensor_split(per_epoch):
                batch = batches.train(
                    clips[rows],
                    key,
                    crop=config.crop,
                    min_frames=config.min_frames,
                    max_angle=config.max_angle,
                )
                key[1] += 1
                features = classifier.features(batch.clips, valid=batch.valid, owner=batch.owner)
                known = labels[clips[rows]]
                loss = (
                    _loss(classifier, features, known, config.mixup)
                    if objective is None
                    else objective(batch, features, known)
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                schedule.step()
                loss_sum += loss.detach() * len(rows)
                shown.advance(note=f"epoch {epoch} of {config.epochs}{latest}")
            mean = float(loss_sum) / len(clips)
            if not math.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean} after epoch {epoch}: lower lr={config.lr:g}")
            latest = f", loss {mean:.3f}"
            if progress is not None and epoch % max(1, config.epochs // 10) == 0:
                progress(f"epoch {epoch}/{config.epochs}{latest}")
    return mean


def _optimizer(
    classifier: ActionClassifier, config: FinetuneConfig, extra: Sequence[nn.Parameter], per_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW over a classifier and the parameters of its objective, and the schedule of its learning rates."""
    groups = classifier.parameter_groups(config.weight_decay, lr=config.lr, layer_decay=config.layer_decay)
    if extra:
        groups.append({"params": list(extra), "lr": config.lr, "weight_decay": config.weight_decay})
    optimizer = torch.optim.AdamW(groups, fused=True)
    total, warmup = config.epochs * per_epoch, round(config.warmup * per_epoch)

    def factor(step: int) -> float:
        # Of each group's own learning rate, the lowest one included (BEiT).
        return learning_rate(step, lr=1.0, min_lr=config.min_lr / config.lr, warmup=warmup, total=total)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _loss(classifier: ActionClassifier, features: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """Return the loss of pooled features ``(B, F)``, mixed with those of other clips where alpha is not 0."""
    if alpha == 0:
        return classifier.loss(classifier.head(features), labels)
    share = torch.distributions.Beta(alpha, alpha).sample().to(features.device)
    other = torch.randperm(len(features), device=features.device)
    logits = classifier.head(torch.lerp(features[other], features, share))
    return torch.lerp(classifier.loss(logits, labels[other]), classifier.loss(logits, labels), share)
