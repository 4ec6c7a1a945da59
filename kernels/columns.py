"""The second half of column sums: the blocks' sums are added in a fixed order, at once or together with others."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Columns(Protocol):
    """Where a launcher leaves the blocks' sums to be added up later; see ``fastamr.ops.ColumnSums``."""

    def room(self, like: Tensor, blocks: int, *columns: int) -> tuple[Tensor, Tensor]:
        """Room ``(blocks, *columns)`` for the blocks' sums, and the sums ``(*columns)`` to be."""


class Parts:
    """Blocks' sums to be written, and the sums that they become.

    Args:
        later: adds up later; None adds up when :meth:`added` is called.
        like: a tensor on the device.
        blocks: of rows.
        columns: shape of the sums.
    """

    def __init__(self, later: Columns | None, like: Tensor, blocks: int, *columns: int) -> None:
        self._sums: Tensor | None = None
        if later is None:
            self.parts = like.new_empty((blocks, *columns), dtype=torch.float32)
        else:
            self.parts, self._sums = later.room(like, blocks, *columns)

    def added(self) -> Tensor:
        """The sums ``(*columns)`` float32."""
        return self.parts.sum(0) if self._sums is None else self._sums
