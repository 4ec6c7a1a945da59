"""How parameters start (as in the public code of MAE and MAMP)."""

from __future__ import annotations

import torch
from torch import nn


def initialize(module: nn.Module) -> None:
    """Linear layers Xavier-uniform with zero bias, LayerNorms at identity; use with ``model.apply(initialize)``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def table(*shape: int) -> nn.Parameter:
    """A learned table (embedding, token or query): truncated normal with standard deviation 0.02."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=0.02))
