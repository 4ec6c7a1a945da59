"""Philox-4x32-10 inside kernels, word for word the generator of ``fastamr.reference.philox``.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Triton ships the rounds; what is fixed
here is the layout of the 128-bit counter: ``(column // 4, row, counter_low, counter_high ^ stream << 24)``.
"""

from __future__ import annotations

import triton
import triton.language as tl

STREAM_SELECT = tl.constexpr(1)
STREAM_CROP = tl.constexpr(2)
STREAM_ROTATE = tl.constexpr(3)
STREAM_DROPOUT = tl.constexpr(4)
STREAM_DROP_PATH = tl.constexpr(5)
STREAM_AUGMENT = tl.constexpr(7)
STREAM_LIMBS = tl.constexpr(8)
STREAM_NOISE = tl.constexpr(9)


@triton.jit
def philox_words(seed, row, block, STREAM: tl.constexpr):
    """The four 32-bit words of columns ``4*block .. 4*block + 3``.

    seed ``(2,)`` int64: pointer to key and counter, any bits; row: int64 scalar, of which the low 32 bits count;
    block: non-negative int32 scalar or vector; STREAM: of the operator. Returns four uint32 of block's shape.
    """
    key = tl.load(seed)
    counter = tl.load(seed + 1)
    low = (counter & 0xFFFFFFFF).to(tl.uint32)
    high = ((counter >> 32) & 0xFFFFFFFF).to(tl.uint32) ^ (STREAM << 24)
    return tl.philox(key, block, (row & 0xFFFFFFFF).to(tl.uint32), low, high)


@triton.jit
def philox_row(seed, row, STREAM: tl.constexpr, BLOCK: tl.constexpr):
    """The words of columns ``0 .. BLOCK - 1`` as one uint32 vector; BLOCK is a power of two of at least 4."""
    a, b, c, d = philox_words(seed, row, tl.arange(0, BLOCK // 4), STREAM)
    # (a, c) joined with (b, d) runs a, b, c, d along the last axis.
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (BLOCK,))
