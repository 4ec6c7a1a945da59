"""Column sums of several calls, added up together."""

from __future__ import annotations

import torch
from torch import Tensor


class ColumnSums:
    """Room for the parts of column sums that calls leave, and one launch that adds up all parts of one shape.

    A kernel that makes a matrix sums the columns of each of its blocks of rows; the blocks' sums are added in a second
    launch, in a fixed order. The gradients of biases and norms are read at the end of a backward only, so that launch
    can wait for those of the other blocks. Back ends that need no second launch take no room.

    Args:
        calls: as many calls of one kind as there may be, for which room is made at once; more make room again.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._open: dict[tuple[int, ...], tuple[Tensor, Tensor, int]] = {}
        self._full: list[tuple[Tensor, Tensor, int]] = []

    def room(self, like: Tensor, blocks: int, *columns: int) -> tuple[Tensor, Tensor]:
        """Room for one call.

        Args:
            like: a tensor on the device; all calls must name one device.
            blocks: B, parts of each sum.
            columns: the sums' shape.

        Returns:
            Parts ``(B, *columns)`` float32 to be written, and the sums ``(*columns)``, true after :meth:`finish`.
        """
        key = (blocks, *columns)
        parts, sums, used = self._open.get(key) or self._more(like, key)
        if used + 1 < self._calls:
            self._open[key] = parts, sums, used + 1
        else:
            self._open.pop(key, None)
            self._full.append((parts, sums, used + 1))
        return parts[used], sums[used]

    def _more(self, like: Tensor, key: tuple[int, ...]) -> tuple[Tensor, Tensor, int]:
        parts = like.new_empty((self._calls, *key), dtype=torch.float32)
        return parts, like.new_empty((self._calls, *key[1:]), dtype=torch.float32), 0

    def finish(self) -> None:
        """Add up what the calls so far have left."""
        for parts, sums, used in (*self._full, *self._open.values()):
            torch.sum(parts[:used], 1, out=sums[:used])
        self._full.clear()
        self._open.clear()
