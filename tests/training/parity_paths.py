"""Two ways to train the same small model from the same seed: what the tests of parity compare.

The reference path is a loop written by hand under ``fastamr.backend("reference")``: plain operations, autograd, and
PyTorch's own AdamW without fusing. The default path is :class:`PretrainStep` with whatever back ends ``auto`` takes;
the fused stack of blocks is named where the library has one, as ``auto`` may prefer plain blocks for so small a model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import fastamr
from fastamr.data import PackedSkeletons, apply_missing, synthetic_actions
from fastamr.models import build_model
from fastamr.nn.learning_rate import learning_rate
from fastamr.ops.common.backends import _TABLE
from fastamr.training import PretrainStep
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.update.optimizer import build_optimizer
from fastamr.training.update.schedule import LearningRateSchedule

SMALL: dict[str, Any] = {
    "frames": 24,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "decoder_width": 32,
    "decoder_depth": 2,
    "decoder_heads": 2,
    "stride": 4,
}
AMR = {"target_patches": 2, "guidance_windows": (4, 8)}


@dataclass(frozen=True)
class Training:
    """A small run: its data, its model, its recipe.

    ``half`` names the half of the official split that it learns from; None is all clips.
    """

    model: str
    updates: int
    total: int = 300
    clips: int = 120
    steps: tuple[str, ...] = ("center",)
    half: str | None = None
    batch: int = 16
    lr: float = 2e-3
    min_lr: float = 1e-3
    warmup: int = 20
    architecture: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    @property
    def schedule(self) -> dict[str, Any]:
        return {"lr": self.lr, "min_lr": self.min_lr, "warmup": self.warmup, "total": self.total}

    def data(self) -> PackedSkeletons:
        return _motion(self.clips, self.steps, self.device)

    def build(self, seed: int) -> nn.Module:
        """The model before its first update."""
        torch.manual_seed(seed)
        settings = {**SMALL, **(AMR if self.model == "amr" else {}), **self.architecture}
        return build_model(self.model, settings).to(self.device)

    def start(self, seed: int) -> tuple[nn.Module, ClipSampler, BatchOrder]:
        model, data = self.build(seed), self.data()
        sequences = torch.arange(data.num_bodies)
        if self.half is not None:
            chosen = getattr(data.split("official"), self.half)
            sequences = sequences[chosen[data.body_clip].cpu()]
        frames: int = model.frames  # type: ignore[assignment]
        return model, ClipSampler(data, frames, min_frames=16), BatchOrder(sequences, self.batch, seed)


@cache
def _motion(clips: int, steps: tuple[str, ...], device: str) -> PackedSkeletons:
    return apply_missing(synthetic_actions(clips, seed=0), steps).to(device)


def fused() -> AbstractContextManager[None]:
    stack = "transformer_stack"
    return fastamr.backend(**({stack: "fused"} if "fused" in _TABLE.get(stack, {}) else {}))


def train_reference(run: Training, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """The trained model, and the loss of each update ``(updates,)`` float64."""
    model, sampler, order = run.start(seed)
    groups = model.parameter_groups(0.05)  # type: ignore[operator]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), foreach=False, fused=False)
    losses = []
    with fastamr.backend("reference"):
        for update in range(run.updates):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(update, **run.schedule)
            draw = torch.tensor([seed, update], device=run.device)
            clips, valid = sampler(order.batch(update).to(run.device), draw)
            loss = model(clips, seed=draw, valid=valid)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
    return model, torch.stack(losses).double().cpu()


def train_default(
    run: Training, seed: int = 0, dtype: torch.dtype = torch.float32, matmul_precision: str | None = None
) -> tuple[nn.Module, Tensor]:
    """The trained model, and the loss of each update ``(updates,)`` float64."""
    model, sampler, order = run.start(seed)
    working = None if dtype == torch.float32 else dtype
    optimizer = build_optimizer(model, lr=1.0, betas=(0.9, 0.95), weight_decay=0.05, working_dtype=working)
    step = PretrainStep(
        model,
        optimizer,
        ResidentClips(sampler, order),
        seed=torch.tensor([seed, 0], device=run.device),
        schedule=LearningRateSchedule(**run.schedule, device=run.device),
        dtype=dtype,
        matmul_precision=matmul_precision,
        clip_grad=1.0,
        window=run.updates,
    )
    with fused():
        for _ in range(run.updates):
            step()
    return model, step.metrics.values[:, 0].double().cpu()
