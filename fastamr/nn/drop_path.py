"""Drop path: whole residual branches are left out of some sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..distributed import draw_rows


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016) as ViT and MAE use it; the identity in evaluation mode.

    Each sequence loses the branch with probability ``rate``; where it stays it is divided by ``1 - rate``, so
    that its expectation is what evaluation computes.

    Args:
        rate: share of dropped sequences, 0 <= rate < 1. It may be changed later.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate} must be at least 0 and below 1, for example 0.1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """``(S, ...)`` to ``(S, ...)``."""
        if not self.training or self.rate == 0:
            return x
        ones = [1] * (x.ndim - 1)
        stays = draw_rows(lambda rows: torch.rand(rows, *ones, device=x.device), len(x)) >= self.rate
        return x * (stays / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        """Return the rate, for ``repr``."""
        return f"rate={self.rate:g}"
