"""A whole fine-tuning update of AMR: plain PyTorch, the library's model in a plain loop, and the library's update.

    OMP_NUM_THREADS=2 python -m benchmarks.bench_finetune [--device cpu|cuda] [--clips 4] [--rounds 20]
        [--precision float32] [--drop-out 0.3] [--drop-path 0.3]

MAMP's recipe (head of 2,048 with BatchNorm, drop-out, drop path, layer decay) on the papers' encoder and random motion
of NTU RGB+D's lengths, one or two bodies a clip. The rungs start from the same weights, draw the same clips, and take
turns round by round, so that what else the machine does falls on all; medians are compared. Where nothing is drawn by
drop-out (``--drop-out 0 --drop-path 0``) the losses of the first updates are compared before. On a GPU the last rung is
recorded as a CUDA graph, and its batches are filled up to one shape, which is said.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from typing import Any

import torch

from fastamr.benchmarking import ntu_sized
from fastamr.benchmarking.machine import busy_warning, environment
from fastamr.benchmarking.timing import measure
from fastamr.devices import missing_instructions
from fastamr.features.clip_batches import ClipBatches
from fastamr.finetuning.fitting.classifier_step import Fit, FitSettings
from fastamr.finetuning.fitting.plain import PlainFit
from fastamr.finetuning.fitting.recipe import FinetuneConfig
from fastamr.memory import keep_freed_memory
from fastamr.models import ActionClassifier, build_model
from fastamr.tables import aligned
from fastamr.training.update.precision import autocast_dtype

CLASSES = 60
RUNGS = ("plain PyTorch", "library's model, plain loop", "library's update")
# Three eager updates, the recording, and the first replay.
PREPARING = 5
"""Updates of every rung before its times count."""


def build(
    recipe: FinetuneConfig, device: torch.device, precision: str, width: int, depth: int
) -> tuple[list[PlainFit | Fit], Fit]:
    """Return the three rungs from the same weights, and the last one."""
    data = ntu_sized(4 * recipe.batch_size).to(device)
    labels = torch.arange(data.num_clips, device=device) % CLASSES
    clips = torch.arange(data.num_clips, device=device)
    sizes: dict[str, Any] = {"width": width, "depth": depth}
    torch.manual_seed(0)
    fast = ActionClassifier(build_model("amr", **sizes), CLASSES, **recipe.head()).to(device)
    plain = ActionClassifier(
        build_model("amr", attention="sdpa", blocks="reference", **sizes), CLASSES, **recipe.head()
    ).to(device)
    plain.load_state_dict(fast.state_dict())
    dtype = autocast_dtype(precision, device)
    frames = fast.encoder.frames
    loops = [
        PlainFit(each, ClipBatches(data, frames), clips, labels, recipe, 0, dtype)
        for each in (plain, copy.deepcopy(fast))
    ]
    step = Fit(
        fast, ClipBatches(data, frames), clips, labels, recipe, 0, None, FitSettings(precision=precision)
    )
    return [*loops, step], step


def compare(
    recipe: FinetuneConfig, device: torch.device, precision: str, rounds: int, sizes: tuple[int, int]
) -> None:
    """Print the median time of an update on each rung."""
    rungs, step = build(recipe, device, precision, *sizes)
    calls = [each.step if isinstance(each, Fit) else each for each in rungs]
    losses = [[float(call()) for _ in range(PREPARING)] for call in calls]
    if recipe.dropout == recipe.drop_path == 0:
        tolerance = 1e-3 if step.step.dtype == torch.float32 else 5e-2
        for found in losses[1:]:
            assert all(abs(a - b) <= tolerance * abs(b) for a, b in zip(found, losses[0], strict=True)), (
                losses
            )
        print("losses of the first updates agree")
    else:
        print(
            "losses are not compared: drop-out and drop path draw (--drop-out 0 --drop-path 0 compares them)"
        )
    times: list[list[float]] = [[] for _ in rungs]
    for turn in range(rounds):
        for place in range(len(rungs)):
            place = (place + turn) % len(rungs)
            times[place] += measure(calls[place], device, rounds=10 if device.type == "cuda" else 1)
    medians = [statistics.median(each) for each in times]
    table = [["rung", "ms an update", "times as fast"]]
    table += [
        [name, f"{1e3 * median:.1f}", f"{medians[0] / median:.2f}"]
        for name, median in zip(RUNGS, medians, strict=True)
    ]
    print(aligned(table))
    print(f"recorded: {step.step.graph_reason or 'yes'}")
    if step.stream.static:
        drawn = step.stream.draw(step.step.counter, step.step.seed)
        print(f"{len(step.stream.bodies(step.update))} bodies of a batch, filled up to {len(drawn.clips)}")
    print("\n".join(step.step.explain().lines()))


def main() -> None:
    """Read the options, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, help="clips in a batch (4 on a CPU, 48 on a GPU)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--drop-out", type=float, default=0.3)
    parser.add_argument("--drop-path", type=float, default=0.3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    asked = parser.parse_args()
    keep_freed_memory()
    device = torch.device(asked.device)
    if reason := missing_instructions(device, autocast_dtype(asked.precision, device)):
        parser.exit(message=f"{reason}: nothing to compare\n")
    clips = asked.clips or (48 if device.type == "cuda" else 4)
    recipe = FinetuneConfig(batch_size=clips, dropout=asked.drop_out, drop_path=asked.drop_path)
    print(environment(device))
    print(busy_warning() or "the machine is quiet")
    print(
        f"{clips} clips, precision {asked.precision}, drop-out {asked.drop_out:g}, drop path {asked.drop_path:g}"
    )
    compare(recipe, device, asked.precision, asked.rounds, (asked.width, asked.depth))


if __name__ == "__main__":
    main()
