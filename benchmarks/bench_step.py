"""One pre-training step (forward, backward, AdamW) at the papers' configuration, clips already sampled.

Rungs: SkeletonMAE with materialised attention (what the public code does), SkeletonMAE with SDPA (its strongest plain
form) and AMR, float32, the same batch and the same fused optimizer for all. 256 sequences on a GPU, 8 on a CPU. The
speed-up is against the materialised SkeletonMAE of the same run.
"""

from __future__ import annotations

import pytest
import torch

from fastamr.models import SkeletonModel, build_model, count_flops
from fastamr.testing import random_clips

from .conftest import Clock

RUNGS = {
    "skeleton_mae materialised": ("skeleton_mae", "materialised"),
    "skeleton_mae sdpa": ("skeleton_mae", "sdpa"),
    "amr": ("amr", "auto"),
}
_baseline: dict[str, float] = {}


def check(model: SkeletonModel, clips: torch.Tensor) -> None:
    """The model's loss equals that of the same weights in float64 with reference attention."""
    few, seed = clips[:2], torch.tensor([1, 0], device=clips.device)
    exact = build_model(model.name, model.config, attention="reference").to(clips.device)
    exact.load_state_dict(model.state_dict())
    truth = exact.double()(few.double(), seed=seed)
    torch.testing.assert_close(model(few, seed=seed).double(), truth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("rung", RUNGS)
def test_step(rung: str, device: torch.device, clock: Clock) -> None:
    name, attention = RUNGS[rung]
    count = 256 if device.type == "cuda" else 8
    clips = random_clips(count, device=device)
    torch.manual_seed(0)
    model = build_model(name, attention=attention).to(device)
    check(model, clips)
    optimizer = torch.optim.AdamW(model.parameter_groups(0.05), lr=1e-3, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        loss = model(clips)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    on_cpu = device.type == "cpu"
    median = clock(
        step,
        rounds=5 if on_cpu else 20,
        warmup=1 if on_cpu else 5,
        op="pre-training step",
        rung=rung,
        shape=list(clips.shape),
        dtype="float32",
        backend=attention,
        sequences_per_second=None,
    )
    _baseline.setdefault(device.type, median)
    # Forward and backward cost three forward passes; count_flops counts two sequences.
    flops = 3 * count_flops(model) * count / 2
    clock.benchmark.extra_info.update(
        sequences_per_second=round(count / median, 2),
        speedup_against_materialised_skeleton_mae=round(_baseline[device.type] / median, 2),
        linear_layer_tflops=round(flops / median / 1e12, 4),
    )
