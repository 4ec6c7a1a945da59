"""Crop, resize and rotate: ragged sequences to a batch of 120 frames."""

from __future__ import annotations

import pytest
import torch

from fastamr import ops, reference

from ..conftest import Clock
from ..forms import FORMS, in_form, number_of_bytes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("storage", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_sample_clips(
    storage: torch.dtype, form: str, device: torch.device, clock: Clock, sequences: int
) -> None:
    lengths = torch.randint(30, 300, (512,), generator=torch.Generator().manual_seed(0))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(device)
    coords = torch.randn(int(offsets[-1]), 25, 3).to(device, storage)
    ids = torch.randint(512, (sequences,), device=device)
    seed = torch.tensor([1, 0], device=device)
    run = in_form(
        form,
        device,
        lambda: ops.sample_clips(coords, offsets, ids, 120, seed),
        lambda: reference.sample_clips(coords, offsets, ids, 120, seed),
    )
    exact = reference.sample_clips(coords.double().cpu(), offsets.cpu(), ids.cpu(), 120, seed.cpu())
    clips = run()
    torch.testing.assert_close(clips.cpu().double(), exact, rtol=1e-3, atol=1e-4)
    # Of each sequence a share between half and all of its frames is read: 3/4 on average, at least 64.
    moved = number_of_bytes(clips) + int(number_of_bytes(coords) / 512 * 0.75) * sequences
    name, shape = str(storage).removeprefix("torch."), [sequences, 120, 25, 3]
    median = clock(run, "sample_clips", shape, "float32", form, bytes_moved=moved, storage=name)
    seconds = clock.benchmark.extra_info.get("device_us_cold", median * 1e6) / 1e6
    clock.benchmark.extra_info["sequences_per_second"] = round(sequences / seconds)
