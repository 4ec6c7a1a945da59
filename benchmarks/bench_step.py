"""Encoding all tokens of AMR without gradients, as evaluation does: the papers' 750, or 200 compact ones.

Whole training steps are the rungs of ``fastamr bench ladder`` (``bench_ladder.py``).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastamr.models import build_model
from fastamr.testing import random_clips

from .conftest import Clock
from .forms import in_both_dtypes

COMPACT: dict[str, Any] = {
    "frames": 64,
    "patch_frames": 8,
    "target_patches": 2,
    "guidance_windows": [4, 8, 16],
}
"""Tokens as the preset ``body-small`` has them."""


@in_both_dtypes
@pytest.mark.parametrize("blocks", ["reference", "fused"])
@pytest.mark.parametrize("shape", [{}, COMPACT], ids=("750-tokens", "200-tokens"))
def test_encode(
    shape: dict[str, Any], blocks: str, dtype: torch.dtype, device: torch.device, clock: Clock
) -> None:
    count = 256 if device.type == "cuda" else 4
    clips = random_clips(count, frames=shape.get("frames", 120), device=device)
    torch.manual_seed(0)
    model = build_model("amr", blocks=blocks, **shape).to(device).eval()
    exact = build_model("amr", attention="reference", blocks="reference", **shape).to(device).double()
    exact.load_state_dict(model.state_dict())
    with torch.inference_mode():
        truth = exact.encode(clips[:2].double())

        def encode() -> torch.Tensor:
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                return model.encode(clips)

        error = (encode()[:2].double() - truth).norm() / truth.norm()
    assert error < (1e-5 if dtype == torch.float32 else 2e-2)
    rounds = 3 if device.type == "cpu" else 20
    median = clock(encode, "transformer_stack encode", clips.shape, dtype, blocks, rounds=rounds, warmup=1)
    clock.benchmark.extra_info.update(sequences_per_second=round(count / median, 2))
