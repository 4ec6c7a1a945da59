"""Clips without a label beside labelled ones: which of them an update of a distillation has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from .labelled_clips import LabelOrder
from .recipe import FinetuneConfig


@dataclass(frozen=True)
class Unlabelled:
    """The unlabelled clips of a training.

    Attributes:
        clips: ``(U,)`` int64, at least one; their labels are below 0.
        share: what part of the clips of a batch they are, above 0 and below 1.
    """

    clips: Tensor
    share: float

    def beside(self, labelled: int) -> int:
        """Return how many of them stand beside so many labelled clips: the share rounded, at least 1, at most all."""
        return min(len(self.clips), max(1, round(labelled * self.share / (1 - self.share))))


class MixedOrder(LabelOrder):
    """The batches of :class:`LabelOrder`, each followed by as many unlabelled clips.

    The labelled clips of every update are those without unlabelled ones. The unlabelled clips follow one another in
    passes: each pass holds each of them once, in an order that follows from the seed and its number. So everything
    follows from the seed and the number of the update.

    Args:
        clips: ``(N,)`` int64, the labelled clips.
        config: the recipe; its batch size counts labelled clips.
        seed: fixes the order.
        unlabelled: the others.

    Attributes:
        sizes: clips of each batch of an epoch, labelled and unlabelled.
        each: unlabelled clips of a batch.
    """

    def __init__(self, clips: Tensor, config: FinetuneConfig, seed: int, unlabelled: Unlabelled) -> None:
        super().__init__(clips, config, seed)
        self._labelled = self.sizes.tolist()
        self._unlabelled = unlabelled.clips.cpu()
        self.each = unlabelled.beside(max(self._labelled))
        self.sizes = self.sizes + self.each

    def epoch(self, number: int) -> Tensor:
        """Return the clips ``(N + per_epoch * each,)`` of an epoch, batch after batch, the labelled ones first."""
        labelled = super().epoch(number).split(self._labelled)
        count = self.per_epoch * self.each
        others = self._others(number * count, count).split(self.each)
        return torch.cat([part for pair in zip(labelled, others, strict=True) for part in pair])

    def _others(self, first: int, count: int) -> Tensor:
        """Return unlabelled clips ``(count,)`` from a place in the endless row of passes on."""
        size = len(self._unlabelled)
        passes = range(first // size, (first + count - 1) // size + 1)
        row = torch.cat([self._pass(number) for number in passes])
        begin = first - passes.start * size
        return row[begin : begin + count]

    def _pass(self, number: int) -> Tensor:
        digest = hashlib.sha256(f"unlabelled {self.seed} {number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return self._unlabelled[torch.randperm(len(self._unlabelled), generator=generator)]
