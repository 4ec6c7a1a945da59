"""Which tokens of a sequence stay visible: a random or a score-driven choice of K of N."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import STREAM_SELECT, philox_words


def gumbel(words: Tensor) -> Tensor:
    """Standard Gumbel noise, float32, from 32-bit words; computed in float64 so that back ends agree."""
    uniform = (words.double() + 0.5) / 2.0**32
    return -(-uniform.log()).log().float()


def ordered_bits(values: Tensor) -> Tensor:
    """Map float32 values to int64 in ``[0, 2**32)`` such that the order is kept."""
    bits = values.view(torch.int32).long() & 0xFFFFFFFF
    return torch.where(bits >= 0x80000000, 0xFFFFFFFF - bits, bits + 0x80000000)


def select_visible(
    seed: Tensor,
    sequences: int,
    tokens: int,
    visible: int,
    *,
    scores: Tensor | None = None,
    largest: bool = False,
    valid: Tensor | None = None,
    return_masked: bool = False,
    return_inverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose ``visible`` of ``tokens`` tokens per sequence; see :func:`fastamr.ops.select_visible`.

    Returns:
        ``keep (S, K)``, ``masked (S, N-K)`` and ``inverse (S, N)``, int32; an output not asked for has 0 columns.
    """
    rows = torch.arange(sequences, device=seed.device)
    if len(seed) == 3:
        rows = rows + seed[2]
    key = philox_words(seed, rows, tokens, STREAM_SELECT)
    if scores is not None:
        key = ordered_bits(scores.float() + gumbel(key))
        if largest:
            key = 0xFFFFFFFF - key
    if valid is not None:
        key = key + ((~valid).long() << 32)
    # All 32 random bits decide; the token's index only breaks ties.
    order = ((key << 24) | torch.arange(tokens, device=seed.device)).sort(dim=1).values & 0xFFFFFF
    keep = order[:, :visible].sort(dim=1).values.int()
    masked, inverse = (keep.new_empty((sequences, 0)) for _ in range(2))
    if return_masked:
        masked = order[:, visible:].sort(dim=1).values.int()
    if return_inverse:
        position = torch.arange(visible, dtype=torch.int32, device=seed.device).expand(sequences, -1)
        inverse = keep.new_full((sequences, tokens), -1).scatter(1, keep.long(), position)
    return keep, masked, inverse
