"""Which body sequences make up the next batch."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor


class Part(NamedTuple):
    """Which part of every batch a process takes: of each micro-batch the same consecutive share.

    Attributes:
        rank: number of the process.
        processes: how many share the batch.
        pieces: micro-batches of an update.
    """

    rank: int = 0
    processes: int = 1
    pieces: int = 1


class BatchOrder:
    """A continuous stream of shuffled epochs, cut into batches of one size.

    Every epoch holds each body sequence once, in an order that depends on the seed and on the epoch's number
    alone. A batch that reaches the end of an epoch goes on in the next one, so that every batch has exactly
    ``batch_size`` sequences (choice: static shapes, nothing dropped). The update's number is the whole state:
    a resumed run sees the same batches, with any number of processes.

    Args:
        sequences: ``(B,)`` int64, indices of the body sequences to draw from; or ``(N, M)``, rows that stay
            together in the order (the body slots of a clip), where an empty slot is negative.
        batch_size: sequences in a batch, of all processes together.
        seed: fixes the order.
        part: of this process; by default the whole batch.

    Attributes:
        count: sequences in an epoch, empty slots included.
        places: ``(P,)`` int64, the places in a batch that this process takes.
        first: place in a micro-batch of the first sequence that it takes.

    Raises:
        ValueError: ``sequences`` is empty, or the batch cannot be shared evenly.
    """

    def __init__(self, sequences: Tensor, batch_size: int, seed: int, part: Part | None = None) -> None:
        if sequences.numel() == 0:
            raise ValueError("no body sequence to train on: the data set or its training split is empty")
        self.sequences = sequences.cpu()
        self.count = self.sequences.numel()
        self.batch_size = batch_size
        self.seed = seed
        part = Part() if part is None else part
        shares = part.processes * part.pieces
        if batch_size % shares:
            raise ValueError(f"batch_size {batch_size} cannot be cut into {shares} even shares")
        self.first = part.rank * (batch_size // shares)
        self.places = torch.arange(batch_size).view(part.pieces, part.processes, -1)[:, part.rank].flatten()
        self._epochs: dict[int, Tensor] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Updates that count as one epoch: sequences over batch size, rounded, at least 1."""
        return max(1, round(self.count / self.batch_size))

    @property
    def most_epochs(self) -> int:
        """How many epochs one batch can reach into."""
        return -(-self.batch_size // self.count) + 1

    def most_frames(self, lengths: Tensor) -> int:
        """Return the most frames that this process's part of a batch can have: the longest, each as often as it fits.

        Args:
            lengths: ``(count,)`` int64, frames of each of ``sequences``, flattened.
        """
        longest = lengths.repeat(self.most_epochs).sort(descending=True).values
        return int(longest[: len(self.places)].sum())

    def epoch_at(self, updates: int) -> float:
        """Return how many times each sequence has been seen on average after so many updates."""
        return updates * self.batch_size / self.count

    def epochs(self, update: int) -> range:
        """Return the numbers of the epochs that the batch of an update takes sequences from."""
        start = update * self.batch_size
        return range(start // self.count, (start + self.batch_size - 1) // self.count + 1)

    def batch(self, update: int) -> Tensor:
        """Return this process's ``(P,)`` int64 indices of the body sequences of an update, counted from 0."""
        numbers = self.epochs(update)
        start = update * self.batch_size - numbers.start * self.count
        return torch.cat([self.epoch(number) for number in numbers])[start + self.places]

    def epoch(self, number: int) -> Tensor:
        """Return one epoch's order ``(count,)`` int64; made on the CPU, so that it is the same for every device."""
        if number not in self._epochs:
            order = self._shuffled(number)
            recent = range(number - self.most_epochs, number + self.most_epochs)
            self._epochs = {epoch: known for epoch, known in self._epochs.items() if epoch in recent}
            self._epochs[number] = order
        return self._epochs[number]

    def _shuffled(self, number: int) -> Tensor:
        """Compute one epoch's order."""
        generator = generator_of(self.seed, number)
        return self.sequences[torch.randperm(len(self.sequences), generator=generator)].flatten()


def generator_of(*numbers: int) -> torch.Generator:
    """Return a generator on the CPU that numbers fix; it reads 32 bits of its seed, so they are mixed into those."""
    mixed = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()[:4]
    return torch.Generator().manual_seed(int.from_bytes(mixed, "little"))
