"""The schedule of the recipes: linear warm-up, then half a cosine."""

from __future__ import annotations

import math


def learning_rate(step: int, *, lr: float, min_lr: float, warmup: int, total: int) -> float:
    """Return the learning rate of one update: linear warm-up, then a cosine down to ``min_lr``.

    Choice: computed per update, not per epoch; the first update has ``lr / warmup``, update ``warmup - 1`` has
    ``lr`` and the last one ``min_lr``.

    Args:
        step: the update, counted from 0.
        lr: the highest value.
        min_lr: the last value.
        warmup: updates of the warm-up.
        total: updates of the run.
    """
    done = step + 1
    if done <= warmup:
        return lr * done / warmup
    share = min(1.0, (done - warmup) / max(1, total - warmup))
    return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * share))
