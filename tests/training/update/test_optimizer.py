import math

import pytest
import torch
from torch import nn

from fastamr.training.update.optimizer import build_optimizer, learning_rate, learning_rate_tensor

RECIPE = {"lr": 1e-3, "min_lr": 5e-4, "warmup": 4, "total": 12}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 2.5e-4),
        (1, 5e-4),
        (3, 1e-3),
        (4, 5e-4 + 5e-4 * 0.5 * (1 + math.cos(math.pi / 8))),
        (7, 7.5e-4),
        (11, 5e-4),
    ],
)
def test_schedule_by_hand(step: int, expected: float) -> None:
    assert learning_rate(step, **RECIPE) == pytest.approx(expected, rel=1e-12)


def test_schedule_without_warmup_starts_on_the_cosine() -> None:
    assert learning_rate(0, lr=1.0, min_lr=0.0, warmup=0, total=2) == pytest.approx(0.5)
    assert learning_rate(1, lr=1.0, min_lr=0.0, warmup=0, total=2) == pytest.approx(0.0)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.bias = nn.Parameter(torch.tensor([2.0]))

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        return [
            {"params": [self.weight], "weight_decay": weight_decay},
            {"params": [self.bias], "weight_decay": 0.0},
        ]


def test_first_update_follows_the_formula_and_reads_the_rate_from_the_tensor() -> None:
    model = Two()
    optimizer = build_optimizer(model, lr=9.0, betas=(0.9, 0.95), weight_decay=0.5)
    rate = learning_rate_tensor(optimizer)
    rate.fill_(0.1)
    (3.0 * model.weight + 3.0 * model.bias).sum().backward()
    optimizer.step()
    # Adam's first step is lr * sign(gradient); decoupled decay takes lr * decay * weight before it.
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, rel=1e-6)
    assert model.bias.item() == pytest.approx(2.0 - 0.1, rel=1e-6)
    assert all(group["lr"] is rate for group in optimizer.param_groups)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    assert optimizer.param_groups[0]["fused"]
