"""Whether two measurements differ by more than their rounds do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.01
"""A difference counts where chance makes one as large in fewer than so many of all cases (choice)."""

_PLENTY = 10  # with so many rounds on both sides a difference can always count
_EXACT = 25  # up to so many rounds chances are counted out

Verdict = Literal["slower", "faster", "within noise", "too few rounds", "no rounds"]


@dataclass(frozen=True)
class Rounds:
    """The times of one thing, milliseconds.

    Attributes:
        median: of the rounds.
        times: of each round; empty where the file holds no more than what follows.
        count: of the rounds.
        low: quartile below the median.
        high: quartile above it.
        mean: of the rounds.
        deviation: standard deviation of the rounds.
    """

    median: float
    times: tuple[float, ...] = ()
    count: int = 0
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    deviation: float = 0.0

    @classmethod
    def of(cls, times: list[float], median: float | None = None) -> Rounds:
        """Return what rounds come to.

        Args:
            times: of each round, at least one.
            median: as the file says it; by default that of the rounds.
        """
        low, middle, high = (float(value) for value in np.percentile(times, [25, 50, 75]))
        deviation = float(np.std(times, ddof=1)) if len(times) > 1 else 0.0
        mean = float(np.mean(times))
        return cls(middle if median is None else median, tuple(times), len(times), low, high, mean, deviation)


def compare(before: Rounds, after: Rounds) -> Verdict:
    """Say whether the later measurement is slower or faster beyond the noise of the rounds.

    It is where the middle halves of both do not meet, and where rank sums as different (Mann and Whitney's test, two
    sides) come by chance in fewer than :data:`LEVEL` of all cases; of files that keep no single rounds Welch's test of
    the means takes its place. So few rounds that no difference could count are told.
    """
    if not (before.count and after.count):
        return "no rounds"
    few = min(before.count, after.count)
    if few < _PLENTY and 2 / math.comb(before.count + after.count, few) >= LEVEL:
        return "too few rounds"
    if before.low <= after.high and after.low <= before.high:
        return "within noise"
    if _chance(before, after) >= LEVEL:
        return "within noise"
    return "slower" if after.median > before.median else "faster"


def _chance(before: Rounds, after: Rounds) -> float:
    from scipy import stats

    if before.times and after.times:
        method = "exact" if max(before.count, after.count) <= _EXACT else "asymptotic"
        return float(stats.mannwhitneyu(before.times, after.times, method=method).pvalue)
    sides = [value for one in (before, after) for value in (one.mean, one.deviation, one.count)]
    if not (before.deviation or after.deviation):
        return 0.0
    return float(stats.ttest_ind_from_stats(*sides, equal_var=False).pvalue)
