"""The resident memory of the loop stays level on a CPU, with all that ``fastamr pretrain`` does beside the updates."""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import synthetic_actions
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.update.step import PretrainStep

from .parity_paths import AMR, SMALL, fused

STATUS = Path("/proc/self/status")
WARM, MEASURED = 500, 2000
# A KiB an update: less than the smallest thing that an update makes, a clip of one sequence, takes.
MOST = MEASURED * 1024


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    (line,) = (line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _memory_by_update(budget: float | None, folder: str) -> dict[int, int]:
    seen: dict[int, int] = {}
    call = PretrainStep.__call__

    def measured(step: PretrainStep, *arguments: Any) -> Any:
        result = call(step, *arguments)
        if step.update % WARM == 0:
            seen[step.update] = resident()
        return result

    data = synthetic_actions(60, seed=0, frames=(16, 40))
    small = {**SMALL, "frames": 16, "width": 16, "depth": 1, "heads": 1}
    small |= {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 1, **AMR}
    config = PretrainConfig(
        model="amr", architecture=small, out=folder, updates=WARM + MEASURED, batch_size=4,
        min_frames=8, log_every=10, probe_every=20, checkpoint_every=20, data_budget=budget,
        device="cpu", progress=False, tensorboard=False,
    )  # fmt: skip
    torch.set_num_threads(1)
    with fused(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainStep, "__call__", measured)
        pretrain(config, data=data)
    return seen


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux tells the resident memory")
@pytest.mark.parametrize("budget", [None, 0.0], ids=["resident", "fetched"])
def test_memory_does_not_grow_over_two_thousand_updates(budget: float | None, tmp_path: Path) -> None:
    """Losses are logged every 10 updates, a probe and a checkpoint come every 20 epochs.

    In a process of its own, as the heap that thousands of other tests left decides what a page more costs.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seen = pool.submit(_memory_by_update, budget, str(tmp_path / "run")).result()
    print({update: f"{size / 2**20:.2f} MiB" for update, size in seen.items()})
    assert list(seen) == [500, 1000, 1500, 2000, 2500]
    assert seen[WARM + MEASURED] - seen[WARM] < MOST
