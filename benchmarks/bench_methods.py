"""One pre-training step of each of the six methods on one machine, beside the published speed-ups.

Two forms of each: *released* writes the attention matrices out and embeds every token before it drops the masked ones,
as MAMP's public code does; *tuned* is the library's default. Both compute the same loss (asserted, float32 against
float64), on the same clips, in float32, with the same optimizer. The published speed-ups are of whole runs on one L20
(NVIDIA; AMR's table), each method in its authors' code. ASMa's paper states no time of pre-training, only its batch of
128, which it is timed with on a GPU, and what its distilled student saves (`STATED`).

    OMP_NUM_THREADS=1 pytest benchmarks/bench_methods.py --benchmark-only --benchmark-timer=time.process_time

Processor time of one thread is what a CPU that also does other work can measure; leave the timer out on a GPU.
Speed-ups are of sequences a second.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastamr.models import SkeletonModel, build_model, count_flops
from fastamr.nn import MaskedPatchEmbed
from fastamr.testing import random_clips

from .conftest import Clock

PUBLISHED = {"skeleton_mae": "1x", "mamp": "1x", "gfp": "6.1x", "amr": "8.1x", "asma": "-", "slim": "-"}
FORMS = {"released": "materialised", "tuned": "auto"}
STATED = {
    "asma": "batch 128, 150 epochs; distilled student: 91.4 % fewer parameters, inference 3 times as fast",
}
# Each method at its paper's size and frames: 120, ASMa 52, SLiM 64.
SEQUENCES = {"cpu": 4, "cuda": 256}
# Its loss is a statistic of the batch; most of its step is the same for any number of sequences.
ASMA_SEQUENCES = {"cpu": 16, "cuda": 128}
# Of one sequence.
_seconds: dict[tuple[str, str, str], float] = {}


class PlainEmbed(MaskedPatchEmbed):
    """Embeds every token and then takes the visible ones, as the public code does."""

    def forward(self, clips: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens ``(S, K, D)`` of the listed patches, or of all."""
        patches = clips.unflatten(1, (-1, self.patch_frames)).transpose(2, 3).flatten(3)
        tokens = (self.proj(patches) + self.time_embed + self.joint_embed).flatten(1, 2)
        return (
            tokens
            if keep is None
            else tokens[torch.arange(len(clips), device=clips.device)[:, None], keep.long()]
        )


def in_form(name: str, form: str, device: torch.device) -> SkeletonModel:
    """A method of the papers' size; forms differ in how they compute, not in what."""
    torch.manual_seed(0)
    model = build_model(name, attention=FORMS[form])
    if form == "released":
        config, tuned = model.config, model.encoder.embed
        plain = PlainEmbed(config.frames, config.joints, config.width, patch_frames=config.patch_frames)
        plain.load_state_dict(tuned.state_dict())
        model.encoder.embed = plain
    return model.to(device)


def check(model: SkeletonModel, clips: Tensor) -> None:
    """The loss equals that of the library's own form in float64 with reference attention."""
    few, seed = clips[:2], torch.tensor([1, 0], device=clips.device)
    exact = build_model(model.name, model.config, attention="reference").to(clips.device)
    exact.load_state_dict(model.state_dict())
    with torch.no_grad():
        truth = exact.double()(few.double(), seed=seed)
        torch.testing.assert_close(model(few, seed=seed).double(), truth, rtol=2e-4, atol=0)


# One form each: ASMa's graph network has no attention, no mask to profit from and no public code, and SLiM embeds every
# token, hidden or not.
CASES = [
    (name, form) for name in PUBLISHED for form in FORMS if form == "tuned" or name not in ("asma", "slim")
]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_step(name: str, form: str, device: torch.device, clock: Clock) -> None:
    model = in_form(name, form, device)
    count = (ASMA_SEQUENCES if name == "asma" else SEQUENCES)[device.type]
    clips = random_clips(count, frames=model.frames, device=device)
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
        "pre-training step",
        clips.shape,
        "float32",
        rounds=5 if on_cpu else 20,
        warmup=1 if on_cpu else 5,
        method=name,
        form=form,
    )
    _seconds[device.type, name, form] = median / count
    clock.benchmark.extra_info.update(
        published_speedup=PUBLISHED[name],
        stated=STATED.get(name, "-"),
        # Two bodies, linear layers only, as in the papers' tables.
        forward_gflops_linear_layers=None if name == "asma" else round(count_flops(model) / 1e9, 1),
        sequences_per_second=round(count / median, 2),
        **_speedups(device.type, median / count),
    )


def _speedups(device: str, seconds: float) -> dict[str, float]:
    """Against both forms of SkeletonMAE, as far as they were run."""
    found = {form: _seconds.get((device, "skeleton_mae", form)) for form in FORMS}
    return {f"against_{form}": round(baseline / seconds, 2) for form, baseline in found.items() if baseline}
