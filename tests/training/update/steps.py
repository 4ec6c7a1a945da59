"""Small steps that the tests of a step take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastamr.skeleton import get_layout
from fastamr.training import PretrainStep
from fastamr.training.clips.augmentation import Augmentation
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import PrefetchedClips, ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.update.optimizer import build_optimizer
from fastamr.training.update.schedule import LearningRateSchedule

from .graphs import ReplayedCalls

CPU = torch.device("cpu")
AUGMENTATION = Augmentation.of(
    get_layout("ntu25"), 3, mirror=0.5, scale_jitter=0.2, drop_limbs=0.3, noise=0.01, project=0.3
)


def seed(key: int = 7) -> Tensor:
    return torch.tensor([key, 0])


def stream(
    data: Any,
    batch: int,
    *,
    fetched: bool = False,
    augmentation: Augmentation | None = None,
    device: torch.device = CPU,
) -> Any:
    order = BatchOrder(torch.arange(data.num_bodies), batch, seed=0)
    settings: dict[str, Any] = {"min_frames": 8, "augmentation": augmentation}
    if fetched:
        return PrefetchedClips(ClipSampler(data, 16, **settings), order, device)
    return ResidentClips(ClipSampler(data.to(device), 16, **settings), order)


def build(tiny: Any, data: Any, *, batch: int = 16, **options: Any) -> PretrainStep:
    torch.manual_seed(0)
    model = tiny(tiny.Config(dropout=options.pop("dropout", 0.0)))
    dtype = options.get("dtype", torch.float32)
    copies = None if dtype == torch.float32 else dtype
    optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, working_dtype=copies)
    if options.pop("recorded", False):
        options["recorder"] = ReplayedCalls(list(model.parameters()))
    augmentation = options.pop("augmentation", None)
    clips = stream(data, batch, fetched=options.pop("fetched", False), augmentation=augmentation)
    return PretrainStep(model, optimizer, clips, seed=seed(), **options)


def run(step: PretrainStep, updates: int) -> list[float]:
    return [step().item() for _ in range(updates)]


def schedule(device: str = "cpu", **changes: Any) -> LearningRateSchedule:
    recipe = {"lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "total": 20, **changes}
    return LearningRateSchedule(**recipe, device=device)


class Regression(nn.Module):
    """A module of its own kind: two inputs, a scalar loss, no masks and no seed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, points: Tensor, values: Tensor) -> Tensor:
        return (self.layer(points)[:, 0] - values).square().mean()
