"""Index arithmetic on sequences of unequal length that lie one after another in one tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """Return ``start, start + 1, ..., start + count - 1`` of every range, one after another, as int64."""
    before = counts.cumsum(0) - counts
    shift = torch.repeat_interleave(starts - before, counts)
    return shift + torch.arange(shift.numel(), device=starts.device)


def row_owner(offsets: Tensor) -> Tensor:
    """Return for every row the index of its sequence: ``offsets (B+1,)`` gives ``(F,)`` int64."""
    counts = offsets.diff()
    return torch.repeat_interleave(torch.arange(counts.numel(), device=offsets.device), counts)


def first_true(mask: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return for every sequence its first row where ``mask`` holds, ``-1`` where there is none.

    Args:
        mask: ``(F,)`` bool.
        owner: ``(F,)`` int64, the sequence of each row.
        count: how many sequences there are.
    """
    rows = mask.numel()
    place = torch.where(mask, torch.arange(rows, device=mask.device), rows)
    first = torch.full((count,), rows, dtype=torch.int64, device=mask.device)
    first.scatter_reduce_(0, owner, place, "amin")
    return torch.where(first == rows, -1, first)


def last_true(mask: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return for every sequence its last row where ``mask`` holds, ``-1`` where there is none.

    Args:
        mask: ``(F,)`` bool.
        owner: ``(F,)`` int64, the sequence of each row.
        count: how many sequences there are.
    """
    place = torch.where(mask, torch.arange(mask.numel(), device=mask.device), -1)
    last = torch.full((count,), -1, dtype=torch.int64, device=mask.device)
    return last.scatter_reduce_(0, owner, place, "amax")


def latest_true(mask: Tensor, owner: Tensor, offsets: Tensor) -> Tensor:
    """Return for every row the latest row of its sequence up to it where ``mask`` holds.

    Rows before the first such row get that first one; rows of a sequence without any get ``-1``.

    Args:
        mask: ``(F,)`` bool.
        owner: ``(F,)`` int64, the sequence of each row.
        offsets: ``(B+1,)`` int64, where each sequence starts.
    """
    first = first_true(mask, owner, offsets.numel() - 1)[owner]
    rows = torch.arange(mask.numel(), device=mask.device)
    latest = torch.where(mask, rows, -1).cummax(0).values
    return torch.where(latest >= offsets[owner], latest, first)


def median(values: Tensor, mask: Tensor, owner: Tensor, count: int) -> Tensor:
    """Return each sequence's lower median of the values where ``mask`` holds, NaN where there is none.

    Args:
        values: ``(F,)`` float.
        mask: ``(F,)`` bool.
        owner: ``(F,)`` int64, the sequence of each value.
        count: how many sequences there are.
    """
    values, owner = values[mask], owner[mask]
    order = values.argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]
    counts = torch.bincount(owner, minlength=count)
    middle = counts.cumsum(0) - counts + (counts - 1).clamp(min=0) // 2
    found = counts > 0
    result = torch.full((count,), float("nan"), dtype=values.dtype, device=values.device)
    result[found] = values[order[middle[found]]]
    return result
