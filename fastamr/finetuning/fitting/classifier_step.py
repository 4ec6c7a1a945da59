"""A classifier that trains, and its update: that of the pre-training with batches and a loss of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...distributed import World
from ...models import ActionClassifier
from ...training.config import GRAPH
from ...training.update.adamw import AdamW
from ...training.update.precision import autocast_dtype, matmul_precision_of
from ...training.update.recording import Recorder
from ...training.update.schedule import LearningRateSchedule
from ...training.update.step import PretrainStep
from .labelled_clips import LabelledClips, LabelOrder
from .learner import Learner, Objective, batch_loss
from .recipe import FinetuneConfig
from .unlabelled import MixedOrder, Unlabelled

if TYPE_CHECKING:
    from ...features.clip_batches import ClipBatches

# Updates between two readings of the losses.
WINDOW = 50


@dataclass(frozen=True)
class FitSettings:
    """How updates are computed; what they compute is the recipe's matter.

    Attributes:
        precision: see :func:`fastamr.training.update.precision.autocast_dtype`.
        graph: ``auto`` records an update as a CUDA graph on a GPU, ``on`` demands it, ``off`` is always eager.
        on_nan: ``stop`` ends the run at a loss that is not finite, ``skip`` leaves such updates out.
        world: the processes that share each batch.
        recorder: stands in for CUDA graphs where there is no GPU.
    """

    precision: str = "float32"
    graph: str = "auto"
    on_nan: str = "stop"
    world: World = field(default_factory=World)
    recorder: Recorder | None = None


class Fit:
    """A classifier that trains, and the update that trains it.

    Attributes:
        order: its batches.
        stream: draws them.
        step: one update.
        total: updates of the whole run.
        loss: sum of the losses of this epoch's clips so far.
        counted: how many clips that is.
        mean: the last epoch's loss.
        skipped: updates that were left out.
    """

    def __init__(
        self,
        classifier: ActionClassifier,
        batches: ClipBatches,
        clips: Tensor,
        labels: Tensor,
        config: FinetuneConfig,
        seed: int,
        objective: Objective | None,
        settings: FitSettings,
        unlabelled: Unlabelled | None = None,
    ) -> None:
        self.config, self.settings, self.data = config, settings, batches.data
        world, device = settings.world, batches.data.device
        self.order = (
            LabelOrder(clips, config, seed)
            if unlabelled is None
            else MixedOrder(clips, config, seed, unlabelled)
        )
        _check_world(classifier, self.order, world)
        static = _is_static(classifier, device, settings)
        self.stream = LabelledClips(
            batches,
            self.order,
            labels,
            config,
            static=static,
            rank=world.rank,
            processes=world.size,
            keep_flat=getattr(classifier.encoder.config, "flat_embedding", False),
        )
        self.model = Learner(classifier, objective).train()
        self.total = config.epochs * self.order.per_epoch
        self.schedule = LearningRateSchedule(
            lr=config.lr,
            min_lr=config.min_lr,
            warmup=round(config.warmup * self.order.per_epoch),
            total=self.total,
            device=device,
        )
        dtype = autocast_dtype(settings.precision, device)
        extra = list(objective.parameters()) if isinstance(objective, nn.Module) else []
        self.step = PretrainStep(
            self.model,
            build_optimizer(classifier, config, extra, None if dtype == torch.float32 else dtype),
            self.stream,
            compute=batch_loss,
            seed=torch.tensor([seed, 0], device=device),
            schedule=self.schedule,
            dtype=dtype,
            matmul_precision=matmul_precision_of(settings.precision),
            skip_not_finite=settings.on_nan == "skip",
            graph=GRAPH[settings.graph] if static else False,
            window=WINDOW,
            recorder=settings.recorder,
            world=world,
        )
        self.loss, self.counted, self.mean, self.skipped = 0.0, 0, math.nan, 0

    @property
    def update(self) -> int:
        """Updates made."""
        return self.step.update


def build_optimizer(
    classifier: ActionClassifier,
    config: FinetuneConfig,
    extra: list[nn.Parameter],
    working_dtype: torch.dtype | None = None,
) -> AdamW:
    """Return AdamW over a classifier's groups, each with a learning rate of its own in a tensor.

    Args:
        classifier: on its device.
        config: the recipe: learning rates, their decay from layer to layer, weight decay.
        extra: parameters of the objective.
        working_dtype: see :class:`fastamr.training.AdamW`.
    """
    groups = classifier.parameter_groups(config.weight_decay, lr=config.lr, layer_decay=config.layer_decay)
    if extra:
        groups.append({"params": extra, "lr": config.lr, "weight_decay": config.weight_decay})
    device = next(classifier.parameters()).device
    for group in groups:
        group["lr_scale"] = group["lr"] / config.lr
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
    return AdamW(groups, lr=config.lr, working_dtype=working_dtype)


def _check_world(classifier: ActionClassifier, order: LabelOrder, world: World) -> None:
    if world.size == 1:
        return
    if int(order.sizes.min()) < world.size:
        raise ValueError(
            f"batch_size gives batches of {int(order.sizes.min())} clips, too few for {world.size} processes: pass a "
            "larger --recipe.batch-size, or start fewer"
        )
    if _normalises(classifier):
        raise ValueError(
            f"the encoder {classifier.encoder.name!r} normalises over the sequences of a batch, so they must lie in "
            f"one process, and torchrun started {world.size}: start one, or take another encoder"
        )


def _is_static(classifier: ActionClassifier, device: torch.device, settings: FitSettings) -> bool:
    """Return whether batches are filled up to one shape, so that an update can be recorded."""
    wanted = settings.graph != "off" and (device.type == "cuda" or settings.recorder is not None)
    if settings.graph == "on" and wanted and _normalises(classifier):
        raise ValueError(
            f"graph 'on', but the encoder {classifier.encoder.name!r} normalises over the sequences of a batch, which "
            "can then not be filled up to one shape: pass --graph auto"
        )
    if settings.graph == "on" and not wanted:
        raise ValueError(
            f"graph 'on', but the model is on the {device.type}, and CUDA graphs need an NVIDIA GPU: pass --graph auto"
        )
    return wanted and not _normalises(classifier)


def _normalises(classifier: ActionClassifier) -> bool:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return any(isinstance(module, kinds) for module in classifier.encoder.modules())
