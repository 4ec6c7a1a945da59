"""One pre-training step (forward, backward, AdamW) at the papers' configuration, clips already sampled.

Rungs: SkeletonMAE with materialised attention and plain blocks (what the public code does), SkeletonMAE with SDPA (its
strongest plain form), AMR in plain PyTorch, and AMR with fused stacks of blocks; the latter two in float32 and in
bfloat16 autocast. The same batch and the same fused optimizer for all. 256 sequences on a GPU, 8 on a CPU. The speed-up
is against the materialised SkeletonMAE of the same run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import pytest
import torch

from fastamr.models import SkeletonModel, build_model, count_flops
from fastamr.testing import random_clips

from .conftest import Clock
from .forms import in_both_dtypes


class Rung(NamedTuple):
    """A way to run a step."""

    model: str
    attention: str
    blocks: str
    dtype: torch.dtype = torch.float32


RUNGS = {
    "skeleton_mae materialised float32": Rung("skeleton_mae", "materialised", "reference"),
    "skeleton_mae sdpa float32": Rung("skeleton_mae", "sdpa", "reference"),
    "amr plain float32": Rung("amr", "sdpa", "reference"),
    "amr fused float32": Rung("amr", "auto", "fused"),
    "amr plain bfloat16": Rung("amr", "sdpa", "reference", torch.bfloat16),
    "amr fused bfloat16": Rung("amr", "auto", "fused", torch.bfloat16),
}
_baseline: dict[str, float] = {}


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Autocast to a 16-bit dtype; nothing for float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def exact_twin(model: SkeletonModel, device: torch.device) -> SkeletonModel:
    """The same weights in float64, plain blocks, reference attention."""
    twin = build_model(model.name, model.config, attention="reference", blocks="reference").to(device)
    twin.load_state_dict(model.state_dict())
    return twin.double()


def check(model: SkeletonModel, clips: torch.Tensor, dtype: torch.dtype) -> None:
    """Loss and gradients equal those of the same weights in float64, as far as the dtype carries."""
    few, seed = clips[:2], torch.tensor([1, 0], device=clips.device)
    twin = exact_twin(model, clips.device)
    truth = twin(few.double(), seed=seed)
    truth.backward()
    with autocast(dtype, clips.device):
        loss = model(few, seed=seed)
    loss.backward()
    rough = dtype != torch.float32
    torch.testing.assert_close(loss.double(), truth, rtol=2e-2 if rough else 1e-4, atol=0)
    gradients = [[p.grad for p in each.parameters() if p.grad is not None] for each in (model, twin)]
    found, exact = (torch.cat([grad.double().flatten() for grad in each]) for each in gradients)
    assert (found - exact).norm() <= (0.1 if rough else 1e-2) * exact.norm()
    model.zero_grad()


@pytest.mark.parametrize("rung", RUNGS)
def test_step(rung: str, device: torch.device, clock: Clock) -> None:
    name, attention, blocks, dtype = RUNGS[rung]
    count = 256 if device.type == "cuda" else 8
    clips = random_clips(count, device=device)
    torch.manual_seed(0)
    model = build_model(name, attention=attention, blocks=blocks).to(device)
    check(model, clips, dtype)
    optimizer = torch.optim.AdamW(model.parameter_groups(0.05), lr=1e-3, betas=(0.9, 0.95), fused=True)

    def step() -> None:
        with autocast(dtype, device):
            loss = model(clips)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    on_cpu = device.type == "cpu"
    median = clock(
        step,
        "pre-training step",
        clips.shape,
        dtype,
        f"{attention}, blocks {blocks}",
        rounds=7 if on_cpu else 20,
        warmup=1 if on_cpu else 5,
        rung=rung,
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


@in_both_dtypes
@pytest.mark.parametrize("blocks", ["reference", "fused"])
def test_encode(blocks: str, dtype: torch.dtype, device: torch.device, clock: Clock) -> None:
    """Encoding all 750 tokens without gradients: what evaluation does."""
    count = 256 if device.type == "cuda" else 4
    clips = random_clips(count, device=device)
    torch.manual_seed(0)
    model = build_model("amr", blocks=blocks).to(device).eval()
    with torch.inference_mode():
        truth = exact_twin(model, device).encode(clips[:2].double())

        def encode() -> torch.Tensor:
            with torch.inference_mode(), autocast(dtype, device):
                return model.encode(clips)

        error = (encode()[:2].double() - truth).norm() / truth.norm()
    assert error < (1e-5 if dtype == torch.float32 else 2e-2)
    median = clock(
        encode,
        "encode",
        clips.shape,
        dtype,
        f"blocks {blocks}",
        rounds=5 if device.type == "cpu" else 20,
        warmup=1,
    )
    clock.benchmark.extra_info.update(sequences_per_second=round(count / median, 2))
