"""Philox-4x32-10, the counter-based random generator that every back end shares.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The same words come out of Triton's
``tl.philox`` and of a CUDA implementation, so a seed names the identical choice everywhere.

The 128-bit counter of a word is laid out as ``(column // 4, row, counter_low, counter_high ^ stream << 24)``; word
``column % 4`` of the result belongs to ``column``. ``seed`` holds ``(key, counter)``; a training step advances the
counter in place. ``stream`` keeps operators that share one seed apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

STREAM_SELECT = 1
STREAM_CROP = 2
STREAM_ROTATE = 3
STREAM_DROPOUT = 4
STREAM_DROP_PATH = 5
STREAM_VIEWS = 6
STREAM_AUGMENT = 7
STREAM_LIMBS = 8
STREAM_NOISE = 9

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def _multiply(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low 32 bits of ``factor * word``; all values are 32-bit words held in int64."""
    low = factor * (word & 0xFFFF)
    middle = factor * (word >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def philox_4x32(key: tuple[Tensor, Tensor], counter: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Run ten rounds of Philox-4x32.

    Args:
        key: two int64 tensors holding 32-bit words.
        counter: four broadcastable int64 tensors holding 32-bit words.

    Returns:
        Four int64 tensors holding 32-bit words.
    """
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def philox_words(seed: Tensor, rows: Tensor, columns: int, stream: int) -> Tensor:
    """Draw one 32-bit word for each row and column.

    Args:
        seed: ``(2,)`` int64, key and counter. The counter counts up to 2**56.
        rows: ``(R,)`` int64; the low 32 bits name the row.
        columns: number of words per row.
        stream: the operator's stream, 0 to 255.

    Returns:
        ``(R, columns)`` int64 with values in ``[0, 2**32)``.
    """
    blocks = torch.arange((columns + 3) // 4, device=rows.device)
    key, counter = seed[0], seed[1]
    words = philox_4x32(
        (key & _MASK, (key >> 32) & _MASK),
        (blocks[None, :], rows[:, None] & _MASK, counter & _MASK, ((counter >> 32) & _MASK) ^ (stream << 24)),
    )
    return torch.stack(torch.broadcast_tensors(*words), dim=-1).flatten(1)[:, :columns]
