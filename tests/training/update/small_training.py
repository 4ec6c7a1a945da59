"""A small model and its training: what the tests of the optimizer share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

OPTIONS = {"lr": 2.0**-6, "betas": (0.9, 0.95), "weight_decay": 0.1}


def make_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 33), nn.GELU(), nn.Linear(33, 3, bias=False), nn.LayerNorm(3)).to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: Sequence[int]) -> list[float]:
    """Some updates on data that the numbers determine; the losses."""
    losses = []
    dtype = next(model.parameters()).dtype
    for number in numbers:
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(number)).to(dtype)
        optimizer.zero_grad()
        loss = (model(inputs) - inputs[:, :3].sin()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def groups_of(model: nn.Module) -> list[dict]:
    weights = [each for each in model.parameters() if each.ndim > 1]
    return [
        {"params": weights},
        {"params": [each for each in model.parameters() if each.ndim < 2], "weight_decay": 0.0},
    ]
