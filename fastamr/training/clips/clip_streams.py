"""Where the clips of a step come from: frames that lie on the device, or frames that are fetched ahead.

Both streams hand out the same clips to the bit. What they do for an update falls into three parts: ``advance``
prepares it on the host, ``draw`` computes with tensors of static shape and address alone, so that it can be
recorded in a CUDA graph, and ``done`` uses the time in which the device computes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import Tensor

from ...data.packed.mapped import Rows
from .batches import BatchOrder
from .mixture import set_of
from .sampling import ClipSampler, FrameRows

# While one batch is computed on, the next has been sent, and the one after that is being gathered.
_SLOTS = 3


class Order(Protocol):
    """What the step asks of the order of the batches.

    Attributes:
        first: place in a micro-batch of the first sequence that this process takes.
    """

    first: int


class ClipStream(Protocol):
    """What :class:`fastamr.training.PretrainStep` asks of a source of clips.

    Attributes:
        order: which sequences or clips make up each batch.
    """

    @property
    def order(self) -> Order:
        """See above."""

    def advance(self, update: int) -> None:
        """Prepare an update, on the host; nothing is waited for that the device has not long finished."""

    def draw(self, counter: Tensor, seed: Tensor) -> Any:
        """Return the batch, tensors or None: clips ``(S, T, V, C)`` float32 and validity ``(S, T, V)`` bool or None.

        With the set of each body sequence at hand, the sets ``(S,)`` int64 follow them.
        What else a batch has is between the stream and the step's ``compute``.

        Args:
            counter: int64 scalar on the device, the number of the update.
            seed: ``(2,)`` int64 on the device.
        """

    def done(self, update: int) -> None:
        """Note that the work of an update has been issued."""


class ResidentClips:
    """Clips from a data set that lies on the device; an update costs the host nothing.

    The order of the epochs at hand lies on the device too, as a ring; the update's number says where its batch
    starts. An epoch's order is uploaded when its first batch is due.

    Args:
        sampler: over data on the device.
        order: which body sequences make up each batch.
        body_set: ``(B,)`` int64, the set of each body sequence, where batches shall say it.
    """

    def __init__(self, sampler: ClipSampler, order: BatchOrder, body_set: Tensor | None = None) -> None:
        self.sampler, self.order = sampler, order
        self._sets = _sets_of(body_set, sampler.coords.device)
        device = sampler.coords.device
        self._held: list[int | None] = [None] * order.most_epochs
        self._ring = torch.zeros(order.most_epochs, order.count, dtype=torch.int64, device=device)
        self._within = order.places.to(device)

    def advance(self, update: int) -> None:
        """Upload the orders of the epochs that the update reaches into, if they are new."""
        self.sampler.check_file()
        for epoch in self.order.epochs(update):
            place = epoch % len(self._held)
            if self._held[place] != epoch:
                numbers = self.order.epoch(epoch)
                numbers = numbers.pin_memory() if self._ring.is_cuda else numbers
                self._ring[place].copy_(numbers, non_blocking=True)
                self._held[place] = epoch

    def draw(self, counter: Tensor, seed: Tensor) -> tuple[Tensor | None, ...]:
        """See :meth:`ClipStream.draw`."""
        place = torch.add(self._within, counter, alpha=self.order.batch_size).remainder_(self._ring.numel())
        numbers = self._ring.view(-1).index_select(0, place)
        return (*self.sampler(numbers, seed), *self._sets(numbers))

    def done(self, update: int) -> None:
        """Nothing to do."""


class PrefetchedClips:
    """Clips from a data set in host memory, whose frames are sent ahead of the update that needs them.

    A thread gathers the frames of the batch after the next one, into page-locked memory beside a GPU, and has the
    system read those of the batch behind it from their file. They are copied on a stream of their own while the device
    computes. The device keeps room for three batches one after another; the offsets of a batch point into its part, so
    that a recorded step finds them without another copy.

    Args:
        sampler: over data in host memory: mapped files, and sets that :func:`~fastamr.data.packed.mapped.join` joined.
        order: which body sequences make up each batch.
        device: where the clips are wanted.
        body_set: ``(B,)`` int64, the set of each body sequence, where batches shall say it.

    Attributes:
        waited: seconds that updates have waited for the thread.
    """

    def __init__(
        self, sampler: ClipSampler, order: BatchOrder, device: torch.device, body_set: Tensor | None = None
    ) -> None:
        self.sampler, self.order = sampler, order
        self._sets = _sets_of(body_set, device)
        self.capacity = order.most_frames(self._lengths(order.sequences.flatten()))
        pinned = device.type == "cuda"
        rows, size = _SLOTS * self.capacity, len(order.places)
        shape = sampler.coords.shape[1:]
        self._coords = torch.zeros(rows, *shape, dtype=sampler.coords.dtype, device=device)
        self._gathered = torch.empty(
            _SLOTS, self.capacity, *shape, dtype=sampler.coords.dtype, pin_memory=pinned
        )
        self._valid = self._gathered_valid = None
        if sampler.valid is not None:
            self._valid = torch.zeros(rows, shape[0], 1, dtype=torch.float16, device=device)
            self._gathered_valid = torch.empty(
                _SLOTS, self.capacity, shape[0], 1, dtype=torch.float16, pin_memory=pinned
            )
        # A row holds the offsets of S sequences, where the last one ends, and their numbers.
        self._table = torch.zeros(_SLOTS, 2 * size + 1, dtype=torch.int64, device=device)
        self._written = torch.zeros(_SLOTS, 2 * size + 1, dtype=torch.int64, pin_memory=pinned)
        self._body_clip = sampler.body_clip.to(device)
        self._sequences = torch.arange(size, device=device)
        self._rows = Rows(sampler.coords)
        self._seen = None if sampler.valid is None else Rows(sampler.valid)
        self.waited = 0.0
        self._thread = ThreadPoolExecutor(1, "fastamr-frames")  # one, so that batches are gathered in order
        self._coming: dict[int, Future[int]] = {}
        self._held: list[int | None] = [None] * _SLOTS
        targets = [tensor for tensor in (self._coords, self._valid, self._table) if tensor is not None]
        self._traffic = _Traffic(device, targets) if pinned else None

    def _lengths(self, numbers: Tensor) -> Tensor:
        """Return the frames of each sequence; an empty slot takes one, of any content."""
        bodies = numbers.clamp(min=0)
        lengths = self.sampler.offsets[bodies + 1] - self.sampler.offsets[bodies]
        return torch.where(numbers < 0, 1, lengths)

    def advance(self, update: int) -> None:
        """Make sure that the update's frames are on their way and that the device waits for them."""
        self._send(update)
        if self._traffic is not None:
            self._traffic.await_arrival(update % _SLOTS)

    def draw(self, counter: Tensor, seed: Tensor) -> tuple[Tensor | None, ...]:
        """See :meth:`ClipStream.draw`."""
        row = self._table.index_select(0, counter.remainder(_SLOTS).view(1))[0]
        size = len(self._sequences)
        numbers = row[size + 1 :]
        empty = numbers < 0 if self.sampler.empty_bodies else None
        bodies = numbers.clamp(min=0)
        group = self._body_clip[bodies]
        offsets = row[: size + 1]
        rows = FrameRows(self._coords, self._valid, offsets, self._sequences, group, empty, bodies)
        return (*self.sampler.sample(rows, seed), *self._sets(numbers))

    def done(self, update: int) -> None:
        """Send the next update's frames while this one is computed, and have those of the one after it gathered."""
        if self._traffic is not None:
            self._traffic.has_read(update % _SLOTS)
        self._send(update + 1)
        self._begin(update + 2)

    def _begin(self, update: int) -> None:
        """Let the thread gather the frames of an update."""
        if update in self._coming:
            return
        slot = update % _SLOTS
        if self._traffic is not None:
            self._traffic.await_free(slot)
        batches = self.order.batch(update), self.order.batch(update + 1)
        self._coming[update] = self._thread.submit(self._gather, slot, *batches)

    def _send(self, update: int) -> None:
        """Copy an update's frames to the device as soon as they are gathered."""
        slot = update % _SLOTS
        if self._held[slot] == update:
            return
        self._begin(update)
        begun = time.perf_counter()
        frames = self._coming[update].result()
        self.waited += time.perf_counter() - begun
        # After a jump what was begun for other updates is of no use, and its slot will be written anew.
        self._coming = {n: batch for n, batch in self._coming.items() if update < n < update + _SLOTS}
        with contextlib.nullcontext() if self._traffic is None else self._traffic.sending(slot):
            self._copy(slot, frames)
        self._held[slot] = update

    def _gather(self, slot: int, numbers: Tensor, following: Tensor) -> int:
        """Collect a batch's frames in host memory, describe them, and return how many there are.

        Runs in the thread; NumPy copies without the interpreter's lock and without PyTorch's threads.
        """
        self.sampler.check_file()
        for start, count in self._places(following):
            self._rows.read_ahead(start, count)
            if self._seen is not None:
                self._seen.read_ahead(start, count)
        coords, end = self._gathered[slot].numpy(), 0
        valid = None if self._gathered_valid is None else self._gathered_valid[slot, ..., 0].numpy()
        for start, count in self._places(numbers):
            coords[end : end + count] = self._rows(start, count).numpy()
            if valid is not None and self._seen is not None:
                valid[end : end + count] = self._seen(start, count).numpy()
            end += count
        size = len(self._sequences)
        written = self._written[slot]
        written[0] = slot * self.capacity
        written[1 : size + 1] = slot * self.capacity + self._lengths(numbers).cumsum(0)
        written[size + 1 :] = numbers
        return end

    def _places(self, numbers: Tensor) -> list[tuple[int, int]]:
        """Return where the frames of each sequence start, and how many there are."""
        starts = self.sampler.offsets[numbers.clamp(min=0)]
        return list(zip(starts.tolist(), self._lengths(numbers).tolist(), strict=True))

    def _copy(self, slot: int, frames: int) -> None:
        first = slot * self.capacity
        self._coords[first : first + frames].copy_(self._gathered[slot, :frames], non_blocking=True)
        if self._valid is not None and self._gathered_valid is not None:
            self._valid[first : first + frames].copy_(self._gathered_valid[slot, :frames], non_blocking=True)
        self._table[slot].copy_(self._written[slot], non_blocking=True)


def _sets_of(body_set: Tensor | None, device: torch.device) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return what finds the sets of body sequences, see :func:`~fastamr.training.clips.mixture.set_of`; None: none."""
    if body_set is None:
        return lambda numbers: ()
    there = body_set.to(device)
    return lambda numbers: (set_of(numbers, there),)


class _Traffic:
    """The order between gathering on the host, copying on a side stream, and computing.

    Args:
        device: a CUDA device.
        targets: what is copied into, filled on the current stream so far.
    """

    def __init__(self, device: torch.device, targets: list[Tensor]) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))
        for target in targets:
            target.record_stream(self.stream)
        self._sent = [torch.cuda.Event() for _ in range(_SLOTS)]
        self._read = [torch.cuda.Event() for _ in range(_SLOTS)]

    def await_free(self, slot: int) -> None:
        """Let the host wait until a slot's last copy has left host memory; it was issued three updates ago."""
        self._sent[slot].synchronize()

    def await_arrival(self, slot: int) -> None:
        """Let the computing stream wait for a slot's frames."""
        torch.cuda.current_stream(self.device).wait_event(self._sent[slot])

    def has_read(self, slot: int) -> None:
        """Note that the update that reads a slot has been issued."""
        self._read[slot].record(torch.cuda.current_stream(self.device))

    @contextlib.contextmanager
    def sending(self, slot: int) -> Iterator[None]:
        """Issue copies into a slot on the side stream; they start when the slot has been read."""
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(self._read[slot])
            yield
            self._sent[slot].record(self.stream)
