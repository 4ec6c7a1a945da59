"""Crop, resize and rotate: ragged sequences to a batch of 120 frames."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops

from .conftest import Clock


@pytest.mark.parametrize("storage", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_sample_clips(storage: torch.dtype, device: torch.device, clock: Clock, sequences: int) -> None:
    lengths = torch.randint(30, 300, (512,), generator=torch.Generator().manual_seed(0))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(device)
    coords = torch.randn(int(offsets[-1]), 25, 3).to(device, storage)
    ids = torch.randint(512, (sequences,), device=device)
    seed = torch.tensor([1, 0], device=device)

    def run() -> torch.Tensor:
        return ops.sample_clips(coords, offsets, ids, 120, seed)

    exact = ops.sample_clips(coords.double().cpu(), offsets.cpu(), ids.cpu(), 120, seed.cpu())
    torch.testing.assert_close(run().cpu().double(), exact, rtol=1e-3, atol=1e-4)
    median = clock(
        run,
        op="sample_clips",
        shape=[sequences, 120, 25, 3],
        dtype=str(storage).removeprefix("torch."),
        backend="reference",
    )
    clock.benchmark.extra_info["sequences_per_second"] = round(sequences / median)
