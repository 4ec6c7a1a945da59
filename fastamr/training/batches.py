"""Which body sequences make up the next batch."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class BatchOrder:
    """A continuous stream of shuffled epochs, cut into batches of one size.

    Every epoch holds each body sequence once, in an order that depends on the seed and on the epoch's number
    alone. A batch that reaches the end of an epoch goes on in the next one, so that every batch has exactly
    ``batch_size`` sequences (choice: static shapes, nothing dropped). The update's number is the whole state:
    a resumed run sees the same batches.

    Args:
        sequences: ``(B,)`` int64, indices of the body sequences to draw from.
        batch_size: sequences in a batch.
        seed: fixes the order.
        device: where the batches are returned.

    Raises:
        ValueError: ``sequences`` is empty.
    """

    def __init__(
        self, sequences: Tensor, batch_size: int, seed: int, device: torch.device | str = "cpu"
    ) -> None:
        if sequences.numel() == 0:
            raise ValueError("no body sequence to train on: the data set or its training split is empty")
        self.sequences = sequences.cpu()
        self.batch_size = batch_size
        self.seed = seed
        self.device = torch.device(device)
        self._epochs: dict[int, Tensor] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Updates that count as one epoch: sequences over batch size, rounded, at least 1."""
        return max(1, round(self.sequences.numel() / self.batch_size))

    def epoch_at(self, updates: int) -> float:
        """Return how many times each sequence has been seen on average after so many updates."""
        return updates * self.batch_size / self.sequences.numel()

    def batch(self, update: int) -> Tensor:
        """Return the ``(batch_size,)`` int64 indices of the body sequences of an update, counted from 0."""
        count = self.sequences.numel()
        position, missing, parts = update * self.batch_size, self.batch_size, []
        first = position // count
        self._epochs = {epoch: order for epoch, order in self._epochs.items() if epoch >= first}
        while missing:
            epoch, start = divmod(position, count)
            part = self._order(epoch)[start : start + missing]
            parts.append(part)
            position, missing = position + part.numel(), missing - part.numel()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        """Return one epoch's order on the device; made on the CPU, so that it is the same on every device."""
        if epoch not in self._epochs:
            # The CPU generator reads 32 bits of its seed only, so seed and epoch are mixed into those.
            mixed = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()[:4]
            generator = torch.Generator().manual_seed(int.from_bytes(mixed, "little"))
            order = self.sequences[torch.randperm(self.sequences.numel(), generator=generator)]
            if self.device.type == "cuda":
                order = order.pin_memory().to(self.device, non_blocking=True)
            self._epochs[epoch] = order
        return self._epochs[epoch]
