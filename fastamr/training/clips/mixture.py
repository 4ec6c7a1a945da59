"""Batches of several data sets, each of which has a share of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .batches import BatchOrder, Part, generator_of

# Sets of fewer rows than this have several epochs shuffled at once.
_TOGETHER = 4096
# Shares are whole numbers of this part of a sequence, so that they are the same on every machine.
_UNIT = 2**32


class MixtureOrder(BatchOrder):
    """A stream of body sequences of several sets, each with its share, cut into batches of one size.

    The probability of a set is proportional to ``n ** temperature``, n its sequences: 1 = in proportion to their
    sizes, 0 = all equally often.

    Choices. The places of the stream are given to the sets as Sainte-Lague gives seats: the next place is that of the
    set whose ``(2 k + 1) / share`` is the smallest, where k is the places that it has. So after every update a set of
    share p has had its part of all places to within ``(1 + m p) / 2`` of them (m sets), the remainder is carried on,
    and micro-batches and processes get even parts. Each set is an endless stream of its own shuffled epochs: nothing
    is seen twice before all of the set was seen once. An epoch of the mixture has as many places as the sets have
    sequences together, as without a mixture; the small sets are seen more than once in it.

    The batch of an update depends on the seed, the update's number, the sets and the temperature alone.

    Args:
        sets: the sequences of each set, as :class:`BatchOrder` takes them; a set may be empty.
        batch_size: sequences in a batch, of all processes together.
        seed: fixes the order.
        temperature: from 0 to 1.
        part: of this process; by default the whole batch.

    Attributes:
        shares: part of all places that each set has; 0 for an empty one.

    Raises:
        ValueError: all sets are empty, or the batch cannot be shared evenly.
    """

    def __init__(
        self,
        sets: Sequence[Tensor],
        batch_size: int,
        seed: int,
        temperature: float,
        part: Part | None = None,
    ) -> None:
        super().__init__(torch.cat([one.cpu() for one in sets]), batch_size, seed, part)
        self.sets = [one.cpu() for one in sets]
        self.sizes = [one.numel() for one in sets]
        self._weights = [round(size**temperature * _UNIT) if size else 0 for size in self.sizes]
        self._total = sum(self._weights)
        self.shares = [weight / self._total for weight in self._weights]
        self._blocks: list[dict[int, Tensor]] = [{} for _ in sets]

    def places_before(self, place: int) -> list[int]:
        """Return how many of the first ``place`` places of the stream each set has."""
        # Rounded down, a set has at most its due; what is left goes to the smallest quotients.
        counts = [
            max(0, (place * weight * 2 - self._slack(weight)) // (2 * self._total))
            for weight in self._weights
        ]
        while sum(counts) < place:
            counts[self._next(counts)] += 1
        return counts

    def _slack(self, weight: int) -> int:
        """Return twice the total times how far a set can lag behind its due."""
        return self._total + len(self.sets) * weight

    def _next(self, counts: list[int]) -> int:
        """Return the set of the next place; of equal quotients the first one's. Whole numbers, so it is exact."""
        best = -1
        for place, weight in enumerate(self._weights):
            if weight and (
                best < 0 or (2 * counts[place] + 1) * self._weights[best] < (2 * counts[best] + 1) * weight
            ):
                best = place
        return best

    def most_frames(self, lengths: Tensor) -> int:
        """See :meth:`BatchOrder.most_frames`."""
        found = []
        for own, size, share in zip(lengths.split(self.sizes), self.sizes, self.shares, strict=True):
            # Twice the bound on the carried remainder, and one for the rounding of equal quotients.
            most = min(self.batch_size, math.ceil(self.batch_size * share + len(self.sets) * share) + 2)
            if size:
                often = -(-most // size) + 1
                found.append(own.repeat(often).sort(descending=True).values[:most])
        return int(torch.cat(found).sort(descending=True).values[: len(self.places)].sum())

    def _shuffled(self, number: int) -> Tensor:
        """Compute the order of one epoch of the mixture."""
        first, last = (self.places_before(each * self.count) for each in (number, number + 1))
        sequences, quotients = [], []
        for place, (begin, end) in enumerate(zip(first, last, strict=True)):
            if end > begin:
                sequences.append(self._stream(place, begin, end))
                numbers = torch.arange(begin, end, dtype=torch.float64)
                quotients.append((2 * numbers + 1) / self._weights[place])
        return torch.cat(sequences)[torch.cat(quotients).argsort(stable=True)]

    def _stream(self, place: int, begin: int, end: int) -> Tensor:
        """Return the sequences from ``begin`` to ``end`` (excluded) of a set's own endless stream."""
        size = self._together(place) * self.sizes[place]
        numbers = range(begin // size, (end - 1) // size + 1)
        known = self._blocks[place]
        found = {block: known[block] if block in known else self._block(place, block) for block in numbers}
        self._blocks[place] = found
        return torch.cat(list(found.values()))[begin - numbers.start * size :][: end - begin]

    def _together(self, place: int) -> int:
        return max(1, _TOGETHER // len(self.sets[place]))

    def _block(self, place: int, number: int) -> Tensor:
        """Return consecutive epochs of a set; a small one has many in an epoch of the mixture."""
        rows = self.sets[place]
        draw = torch.rand(
            self._together(place),
            len(rows),
            dtype=torch.float64,
            generator=generator_of(self.seed, place, number),
        )
        return rows[draw.argsort(stable=True, dim=1).flatten()].flatten()


def set_of(numbers: Tensor, body_set: Tensor) -> Tensor:
    """Return the set of each body sequence.

    Args:
        numbers: ``(S,)`` int64, body sequences; ``-1 - k`` is an empty slot of a clip of set k.
        body_set: ``(B,)`` int64, the set of each body sequence.
    """
    return torch.where(numbers < 0, -1 - numbers, body_set[numbers.clamp(min=0)])
