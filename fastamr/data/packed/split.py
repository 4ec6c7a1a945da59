"""A split: which clips train and which test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Split:
    """Two masks over the clips of a data set; a clip may be in neither.

    Args:
        train: ``(N,)`` bool.
        test: ``(N,)`` bool.
    """

    train: Tensor
    test: Tensor

    def take(self, clips: Tensor) -> Split:
        """Return the split over some of the clips, given as int64 indices."""
        return Split(self.train[clips], self.test[clips])

    def to(self, device: torch.device | str) -> Split:
        """Return the split on a device."""
        return Split(self.train.to(device), self.test.to(device))
