"""Reading a data set in blocks of whole bodies, so that a mapped file larger than the memory can be audited."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..packed.dataset import PackedSkeletons
from ..packed.mapped import mapped_file

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]
Index = NDArray[np.int64]

# Frames read at a time; 20 MB at 25 joints.
_ROWS = 1 << 16


class Block(NamedTuple):
    """Some neighbouring bodies with all their frames.

    Attributes:
        first: the first body's index.
        lengths: ``(b,)`` frames of each body.
        coords: ``(n, V, C)`` float32, their frames one after another; read-only.
        seen: ``(n, V)`` bool: the joint was seen, is finite, and the body was there.
        present: ``(n,)`` bool: some coordinate is not 0.
        start: the row of ``coords`` that the first frame has in the data set.
    """

    first: int
    lengths: Index
    coords: Floats
    seen: Flags
    present: Flags
    start: int

    def owner(self) -> Index:
        """Return ``(n,)``: for each frame the position of its body in this block."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def bodies(self) -> Iterator[tuple[int, slice]]:
        """Yield each body's index in the data set and its rows in this block."""
        ends = self.lengths.cumsum()
        for place, (length, end) in enumerate(zip(self.lengths.tolist(), ends.tolist(), strict=True)):
            yield self.first + place, slice(end - length, end)


def body_blocks(data: PackedSkeletons, rows: int = _ROWS) -> Iterator[Block]:
    """Yield all bodies in order, in blocks of at most ``rows`` frames or of a single body."""
    offsets = data.offsets.cpu().numpy()
    first = 0
    file = mapped_file(data.coords)
    while first < data.num_bodies:
        if file is not None:
            file.check()
        last = int(np.searchsorted(offsets, offsets[first] + rows, side="right")) - 1
        last = max(last, first + 1)
        yield _read(data, offsets, first, last)
        first = last


def read_body(data: PackedSkeletons, body: int) -> Block:
    """Return the block of one body."""
    return _read(data, data.offsets.cpu().numpy(), body, body + 1)


def every_channel(flags: Flags) -> Flags:
    """Return ``flags.all(axis=2)``; NumPy is several times slower at a last axis of 2 or 3."""
    return functools.reduce(np.logical_and, np.moveaxis(flags, 2, 0))


def _read(data: PackedSkeletons, offsets: Index, first: int, last: int) -> Block:
    start, stop = int(offsets[first]), int(offsets[last])
    coords = data.coords[start:stop].float().cpu().numpy()
    seen = every_channel(np.isfinite(coords))
    present: Flags = np.asarray(coords.reshape(len(coords), -1).any(axis=1))
    seen &= present[:, None]
    if data.valid is not None:
        seen &= data.valid[start:stop].cpu().numpy()
    return Block(first, np.diff(offsets[first : last + 1]), coords, seen, present, start)
