"""The learning rate of every update, as a table on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from ...nn.learning_rate import learning_rate


class LearningRateSchedule:
    """Looks the learning rate of an update up on the device, so that a recorded step can advance it.

    The table holds :func:`fastamr.nn.learning_rate.learning_rate` of every update, rounded to float32 (four bytes an
    update). Updates past the end keep the last value.

    Args:
        lr: the highest value.
        min_lr: the last value.
        warmup: updates of the warm-up.
        total: updates of the run.
        device: where the step runs.
    """

    def __init__(
        self, *, lr: float, min_lr: float, warmup: int, total: int, device: torch.device | str
    ) -> None:
        self._recipe = {"lr": lr, "min_lr": min_lr, "warmup": warmup, "total": total}
        rates = [self.at(update) for update in range(total)]
        self._table = torch.tensor(rates, dtype=torch.float32, device=device)

    def at(self, update: int) -> float:
        """Return the learning rate of an update, counted from 0, for the host."""
        return learning_rate(update, **self._recipe)  # type: ignore[arg-type]

    def __call__(self, counter: Tensor) -> Tensor:
        """Return the learning rate, a float32 scalar, of the update that ``counter``, an int64 scalar, names."""
        return self._table.index_select(0, counter.clamp(max=len(self._table) - 1).view(1))[0]
