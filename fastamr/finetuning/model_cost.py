"""What a classifier costs to use: parameters, size of its file, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..models import ActionClassifier
from ..models.base import WEIGHTS_FILE

BATCHES = (1, 32)
LEAST_ROUNDS = 3


def file_bytes(folder: str | Path) -> int:
    """Return the size of a saved classifier's weights in bytes."""
    return (Path(folder) / WEIGHTS_FILE).stat().st_size


def cpu_latency(
    models: Mapping[str, ActionClassifier],
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = 15,
    seconds: float = 20.0,
) -> dict[str, Any]:
    """Measure the forward pass of classifiers on the CPU, in evaluation mode, without autograd, in float32.

    Every round times each model once on the same clips (normal noise, one body a clip), so that what else the machine
    does falls on all of them; the median over the rounds is reported, after one round that is not counted. The
    library's own choice of back ends runs, on the threads that torch uses.

    Args:
        models: classifiers by name, on the CPU, for clips of one shape.
        batches: clips at a time.
        rounds: rounds that count, at least 3.
        seconds: after this time, and 3 rounds, a batch size needs no more rounds.

    Returns:
        ``{"threads", "batches": {batch: {"rounds", "milliseconds": {name: median}, "fastest": {name: least}}}}``, with
        the batch sizes as text (JSON).

    Raises:
        ValueError: fewer than 3 rounds.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"rounds={rounds} must be at least {LEAST_ROUNDS}")
    generator = torch.Generator().manual_seed(0)
    config = next(iter(models.values())).encoder.config
    shape = (config.frames, config.joints, config.channels)
    found = {}
    for batch in batches:
        clips = torch.randn(batch, *shape, generator=generator)
        _round(models, clips)
        times: dict[str, list[float]] = {name: [] for name in models}
        start = time.perf_counter()
        for done in range(rounds):
            if done >= LEAST_ROUNDS and time.perf_counter() - start > seconds:
                break
            for name, value in _round(models, clips).items():
                times[name].append(value)
        found[str(batch)] = {
            "rounds": len(next(iter(times.values()))),
            "milliseconds": {name: statistics.median(values) for name, values in times.items()},
            "fastest": {name: min(values) for name, values in times.items()},
        }
    return {"threads": torch.get_num_threads(), "batches": found}


@torch.inference_mode()
def _round(models: Mapping[str, ActionClassifier], clips: torch.Tensor) -> dict[str, float]:
    """Run each model once; milliseconds by name."""
    times = {}
    for name, model in models.items():
        model.eval()
        start = time.perf_counter()
        model(clips)
        times[name] = 1e3 * (time.perf_counter() - start)
    return times
