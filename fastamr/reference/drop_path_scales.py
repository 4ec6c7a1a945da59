"""Which residual branches each sequence keeps, as factors of the branches (stochastic depth, Huang et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .philox import STREAM_DROP_PATH, philox_words


def rate_table(rates: Sequence[float], device: torch.device) -> Tensor:
    """``(2, R)`` float64: below which word a branch is dropped, and the factor of one that stays.

    No copy from the host, which a CUDA graph could not record: the numbers travel as arguments of a kernel.
    """
    table = torch.zeros(2, len(rates), dtype=torch.float64, device=device)
    if rates:
        numbers = [*(rate * 2.0**32 for rate in rates), *(1 / (1 - rate) for rate in rates)]
        torch._foreach_add_(list(table.view(-1).unbind()), numbers)
    return table


def drop_path_scales(seed: Tensor, rates: Sequence[float], sequences: int) -> Tensor:
    """See :func:`fastamr.ops.drop_path_scales`."""
    rows = torch.arange(sequences, device=seed.device)
    if len(seed) == 3:
        rows = rows + seed[2]
    bounds, factors = rate_table(rates, seed.device)
    words = philox_words(seed, rows, len(rates), STREAM_DROP_PATH)
    return torch.where(words.double() >= bounds, factors, 0).float().T.contiguous()
