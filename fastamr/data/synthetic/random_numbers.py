"""Random numbers of the synthetic data set: the same on every machine and with every NumPy version.

The bits come from PCG64, whose stream is fixed; how they become numbers is fixed here.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def bit_stream(*key: int) -> np.random.PCG64:
    """An independent PCG64 stream for each tuple of non-negative integers."""
    return np.random.PCG64(np.random.SeedSequence(key))


def uniforms(bits: np.random.PCG64, rows: int, columns: int) -> Array:
    """``(rows, columns)`` float32 multiples of 2^-24 in [0, 1); row ``i`` does not depend on ``rows``."""
    raw = bits.random_raw(rows * columns).reshape(rows, columns)
    return (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


class Draws:
    """Hands out the columns of a table of uniform numbers, one after another.

    Args:
        table: ``(n, K)`` float32 in [0, 1).
    """

    def __init__(self, table: Array) -> None:
        self.table = table
        self._used = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Array:
        """The next number of each row ``(n,)``, between ``low`` and ``high``."""
        return self.block(1)[:, 0] * (high - low) + low

    def block(self, columns: int) -> Array:
        """The next ``columns`` numbers of each row ``(n, columns)``, in [0, 1)."""
        first, self._used = self._used, self._used + columns
        if self._used > self.table.shape[1]:
            raise IndexError(f"{self._used} numbers drawn from a table of {self.table.shape[1]}")
        return self.table[:, first : self._used]

    def take(self, rows: NDArray[np.int64]) -> Draws:
        """A fresh start on some of the rows."""
        return Draws(self.table[rows])


def noise_table(deviation: float, outliers: float, outlier_scale: float) -> Array:
    """4096 equally likely values: the quantiles of a Gaussian, a share of them from a wider one."""
    wide = round(4096 * outliers)
    values = [
        NormalDist().inv_cdf((place + 0.5) / count) * scale * deviation
        for count, scale in ((4096 - wide, 1.0), (wide, outlier_scale))
        for place in range(count)
    ]
    return np.array(values, dtype=np.float32)


def add_noise(values: Array, table: Array, bits: np.random.PCG64) -> None:
    """Add a random entry of a 4096-entry table to every element of a contiguous array, in place."""
    flat = values.reshape(-1)
    block = 1 << 16
    for first in range(0, flat.size, block):
        part = flat[first : first + block]
        words = bits.random_raw(-(-part.size // 4)).astype("<u8", copy=False).view("<u2")
        part += table[words[: part.size] & 4095]
