"""Fine-tuning as a plain PyTorch loop: what the update of :mod:`.fit` is compared with, in tests and benchmarks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...features.sampling import sample_bodies
from ...models import ActionClassifier
from ...nn.learning_rate import learning_rate
from .recipe import FinetuneConfig

if TYPE_CHECKING:
    from ...features.clip_batches import ClipBatches


class PlainFit:
    """Updates a classifier as most code does: batches of the size that they have, autograd, ``torch.optim.AdamW``.

    It takes no mix-up, whose numbers are drawn elsewhere.

    Args:
        classifier: trained in place; in training mode.
        batches: the data, on the classifier's device.
        clips: ``(B,)`` int64, the clips to train on.
        labels: ``(N,)`` int64, of all clips of the data.
        config: the recipe.
        seed: fixes the order of the clips and the augmentation.
        dtype: autocast's dtype; float32 = none.
    """

    def __init__(
        self,
        classifier: ActionClassifier,
        batches: ClipBatches,
        clips: Tensor,
        labels: Tensor,
        config: FinetuneConfig,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.classifier, self.batches, self.clips, self.labels = classifier.train(), batches, clips, labels
        self.config, self.dtype = config, dtype
        self.per_epoch = math.ceil(len(clips) / config.batch_size)
        if config.hidden and len(clips) < 2 * self.per_epoch:
            self.per_epoch = len(clips) // 2
        groups = classifier.parameter_groups(
            config.weight_decay, lr=config.lr, layer_decay=config.layer_decay
        )
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        total, warmup = config.epochs * self.per_epoch, round(config.warmup * self.per_epoch)
        low = config.min_lr / config.lr
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate(step, lr=1.0, min_lr=low, warmup=warmup, total=total)
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.key = torch.tensor([seed, 0], device=clips.device)
        self._left: list[Tensor] = []

    def __call__(self) -> Tensor:
        """Make one update, and return its loss."""
        if not self._left:
            order = torch.randperm(len(self.clips), generator=self.generator).to(self.clips.device)
            self._left = list(order.tensor_split(self.per_epoch))
        chosen = self.clips[self._left.pop(0)]
        config, batches = self.config, self.batches
        bodies, owner = batches.bodies(chosen)
        clips, valid = sample_bodies(
            batches.data, bodies, batches.frames, crop=config.crop, seed=self.key, min_frames=config.min_frames,
            max_angle=config.max_angle,
        )  # fmt: skip
        with torch.autocast(clips.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            logits = self.classifier(clips, valid=valid, owner=owner, seed=self.key)
            loss = self.classifier.loss(logits, self.labels[chosen])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.key[1] += 1
        return loss.detach()
