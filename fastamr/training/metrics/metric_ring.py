"""Numbers of the last updates, kept on the device and read without making it wait."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class MetricRing:
    """The losses and terms of the last updates, written where a recorded step can write them.

    Args:
        size: updates that it holds.
        device: where the step runs.

    Attributes:
        values: ``(size, 1 + terms)`` float32 on the device; update ``u`` owns row ``u % size``.
        names: the terms' names, in the order of the columns after the first, which is the loss.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.values = torch.zeros(size, 1, device=device)
        self.names: tuple[str, ...] = ()

    def add(self, counter: Tensor, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """Write the row of one update.

        Args:
            counter: int64 scalar on the device, the number of the update.
            loss: scalar.
            terms: scalars by name; the first update decides which there are.

        Raises:
            ValueError: other terms than those of the updates before.
        """
        if tuple(terms) != self.names:
            self._rename(tuple(terms))
        row = loss.float().view(1)
        if terms:
            row = torch.cat([row, *(term.float().view(1) for term in terms.values())])
        self.values.index_copy_(0, counter.remainder(len(self.values)).view(1), row.unsqueeze(0))

    def _rename(self, names: tuple[str, ...]) -> None:
        if self.names:
            raise ValueError(
                f"the model reports the terms {', '.join(names) or 'none'}, it reported {', '.join(self.names)} "
                "before: report the same terms in every update"
            )
        self.names = names
        self.values = self.values.new_zeros(len(self.values), 1 + len(names))


class Reading(NamedTuple):
    """Consecutive updates, read together.

    Attributes:
        first: number of the first update, counted from 0.
        losses: the loss of each.
        terms: mean of each term over those whose loss is finite.
        seconds: what they took on the device.
    """

    first: int
    losses: list[float]
    terms: dict[str, float]
    seconds: float


class MetricReader:
    """Reads a ring in two moves: ask for a copy, and take it when it has arrived.

    Between the two the device goes on. On a GPU the copy goes to page-locked memory and an event tells when it is
    there; the host waits for it only when the next one is asked for, or when told to.

    Args:
        ring: what is read.
        update: the update that the first reading starts from.
    """

    def __init__(self, ring: MetricRing, update: int = 0) -> None:
        self.ring = ring
        self._asked: tuple[int, int, _Copy, Mark] | None = None
        self.restart(update)

    def restart(self, update: int) -> None:
        """Start the clock and the next reading at an update; what was not read before is forgotten."""
        self._asked = None
        self._first, self._mark = update, Mark(self.ring.values.device)

    def ask(self, end: int) -> None:
        """Ask for the updates since the last reading, up to ``end`` (excluded).

        Raises:
            RuntimeError: the reading asked for before was not taken.
            ValueError: more updates than the ring holds.
        """
        if self._asked is not None:
            raise RuntimeError("the reading asked for before was not taken: take(wait=True) first")
        if end - self._first > len(self.ring.values):
            raise ValueError(
                f"updates {self._first} to {end} are more than the {len(self.ring.values)} that the ring holds"
            )
        if end > self._first:
            mark = Mark(self.ring.values.device)
            self._asked = (self._first, end, _Copy(self.ring.values), self._mark)
            self._first, self._mark = end, mark

    def take(self, *, wait: bool = False) -> Reading | None:
        """Return what was asked for, or None where nothing is asked for or it is still on its way.

        Args:
            wait: let the host wait for it.
        """
        if self._asked is None:
            return None
        first, end, copy, start = self._asked
        if not copy.arrived(wait):
            return None
        self._asked = None
        size = len(copy.values)
        rows = [copy.values[update % size] for update in range(first, end)]
        table = torch.stack(rows).double()
        sound = table[table[:, 0].isfinite()]
        means = (sound if len(sound) else table).mean(0).tolist()[1:]
        terms = dict(zip(self.ring.names, means, strict=True))
        return Reading(first, table[:, 0].tolist(), terms, start.until(self._mark))


class _Copy:
    """A copy of a tensor in host memory, which may still be on its way."""

    def __init__(self, source: Tensor) -> None:
        self._there: torch.cuda.Event | None = None
        if not source.is_cuda:
            self.values = source.clone()
            return
        self.values = torch.empty_like(source, device="cpu", pin_memory=True)
        self.values.copy_(source, non_blocking=True)
        self._there = torch.cuda.Event()
        self._there.record(torch.cuda.current_stream(source.device))

    def arrived(self, wait: bool) -> bool:
        if self._there is not None and wait:
            self._there.synchronize()
        return self._there is None or self._there.query()


class Mark:
    """A point in the stream of work, and the time at which the device reached it."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        self._time = time.perf_counter()
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))

    def reached(self) -> bool:
        """Whether the device is there; nothing waits for it."""
        return self._event is None or self._event.query()

    def until(self, other: Mark) -> float:
        """Return the seconds from this mark to a later one, which the device must have reached."""
        if self._event is not None and other._event is not None:
            return self._event.elapsed_time(other._event) / 1e3
        return other._time - self._time
