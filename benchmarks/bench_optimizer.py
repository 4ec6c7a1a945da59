"""A whole pre-training update of AMR with the library's AdamW and with PyTorch's fused one, measured in turns.

    OMP_NUM_THREADS=2 python -m benchmarks.bench_optimizer [--device cpu|cuda] [--sequences 8] [--rounds 40]

The papers' configuration, the step of ``fastamr pretrain``: clips, masks, forward, backward, clipping where asked for,
optimizer. Both start from the same weights and must reach the same ones, then take turns round by round, so that what
else the machine does falls on both; medians are compared. The rule: the library's AdamW stays where it makes an update
at least 3 % faster. Below stand the launches of an optimizer step on a GPU, counted from the tensors' sizes.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fastamr import ops
from fastamr.benchmarking import ntu_sized
from fastamr.benchmarking.machine import busy_warning, environment
from fastamr.benchmarking.timing import measure
from fastamr.devices import missing_instructions
from fastamr.memory import keep_freed_memory
from fastamr.models import build_model
from fastamr.nn.stacks.working_weights import register_working_copy
from fastamr.tables import aligned
from fastamr.training import PretrainStep
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.update.adamw import AdamW

BETAS, DECAY, LR, MAX_NORM, LEAST_GAIN = (0.9, 0.95), 0.05, 1e-3, 1.0, 0.03
# What one launch of PyTorch's multi-tensor kernels holds (ATen/native/cuda/MultiTensorApply.cuh, 2.13): chunks of so
# many numbers, and by CUDA's version the most tensors for 1, 2, 3, 4 lists, and the most chunks.
CHUNK = 65_536
MOST = {12: ((110, 64, 48, 36), 320), 13: ((770, 448, 336, 252), 2240)}


class TorchAdamW(torch.optim.AdamW):
    """What would take the place of the library's class: PyTorch's fused AdamW and one multi-tensor copy.

    Args:
        groups: of parameters, as ``parameter_groups`` of a model gives them.
        lr: a float32 scalar on the parameters' device.
        working_dtype: of the copies that fused layers compute with; None keeps none.
    """

    def __init__(self, groups: Any, lr: Tensor, working_dtype: torch.dtype | None = None) -> None:
        super().__init__(groups, lr, BETAS, weight_decay=DECAY, fused=True, capturable=lr.is_cuda)
        self.masters = [each.detach() for group in self.param_groups for each in group["params"]]
        self.copies = [torch.empty_like(each, dtype=working_dtype) for each in self.masters if working_dtype]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update, then bring the copies up to date."""
        super().step(closure)
        if self.copies:
            torch._foreach_copy_(self.copies, self.masters)
            parameters = (each for group in self.param_groups for each in group["params"])
            for parameter, copy in zip(parameters, self.copies, strict=True):
                register_working_copy(parameter, copy)


def build(ours: bool, dtype: torch.dtype, clip: float | None, sequences: int, device: str) -> PretrainStep:
    """The step of ``fastamr pretrain`` with either optimizer, from the same weights, clips and masks."""
    torch.manual_seed(0)
    model = build_model("amr").to(device).train()
    data = ntu_sized(sequences).to(device)
    rate = torch.tensor(LR, device=device)
    groups = [{**group, "lr": rate} for group in model.parameter_groups(DECAY)]
    working = None if dtype == torch.float32 else dtype
    optimizer: torch.optim.Optimizer = TorchAdamW(groups, rate, working)
    if ours:
        optimizer = AdamW(groups, rate, BETAS, weight_decay=DECAY, working_dtype=working)
    order = BatchOrder(torch.arange(data.num_bodies), sequences, 0)
    seed = ops.make_seed(torch.Generator().manual_seed(0), torch.device(device))
    clips = ResidentClips(ClipSampler(data, model.frames), order)
    return PretrainStep(
        model, optimizer, clips, seed=seed, dtype=dtype, matmul_precision="highest", clip_grad=clip
    )


def check(steps: Iterable[PretrainStep], dtype: torch.dtype) -> None:
    """Both reach the same loss and weights in five updates, as far as the dtype carries."""
    reached = []
    for step in steps:
        losses = [float(step()) for _ in range(5)]
        reached.append((losses[-1], torch.cat([each.detach().flatten() for each in step.model.parameters()])))
    (loss, weights), (other, others) = reached
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    assert abs(loss - other) <= tolerance * abs(other), (loss, other)
    assert (weights - others).norm() <= tolerance * others.norm()


def compare(dtype: torch.dtype, clip: float | None, sequences: int, device: str, rounds: int) -> list[str]:
    """One line of the table: the medians of both, and what the library's AdamW gains."""
    steps = [build(ours, dtype, clip, sequences, device) for ours in (True, False)]
    check(steps, dtype)
    calls = (
        10 if device == "cuda" else 1
    )  # between two events a GPU runs several, without waiting for the host
    times: list[list[float]] = [[], []]
    for turn in range(rounds):
        for place in (turn % 2, 1 - turn % 2):
            times[place] += measure(steps[place], torch.device(device), rounds=calls)
    ours, theirs = (1e3 * statistics.median(each) for each in times)
    gain = theirs / ours - 1
    verdict = "keep" if gain >= LEAST_GAIN else "replace"
    name = str(dtype).removeprefix("torch.")
    return [name, "no" if clip is None else "yes", f"{ours:.2f}", f"{theirs:.2f}", f"{gain:+.1%}", verdict]


def launches(tensors: list[int], lists: int, cuda: int) -> int:
    """Launches of one multi-tensor kernel over ``lists`` lists of tensors of these sizes."""
    (most_tensors, most_chunks), count, held, chunks = MOST[cuda], 0, 0, 0
    for numbers in tensors:
        held += 1
        for left in range(-(-numbers // CHUNK), 0, -1):
            chunks += 1
            full = left == 1 and held == most_tensors[lists - 1]
            if full or chunks == most_chunks:
                # A tensor that is cut goes on in the next launch.
                count, chunks, held = count + 1, 0, 0 if left == 1 else 1
    return count + (chunks > 0)


def launch_table() -> str:
    """Launches of an optimizer step of AMR on a GPU."""
    groups = [
        [each.numel() for each in group["params"]] for group in build_model("amr").parameter_groups(DECAY)
    ]
    everything = [numbers for group in groups for numbers in group]
    rows = [["launches of a step on a GPU", "fastamr", *(f"torch, CUDA {cuda}" for cuda in MOST)]]

    def add(title: str, ours: int, theirs: Iterable[int]) -> None:
        rows.append([title, str(ours), *map(str, theirs)])

    # Triton: _count and _update, with clipping _sum_squares before them. PyTorch, by group: the counters, the update.
    plain = [sum(launches(g, 1, c) + launches(g, 4, c) for g in groups) for c in MOST]
    # foreach_norm and foreach_mul; beside them zeros, clean-up, stack, norm of norms, four operations for the factor.
    clip = [2 * launches(everything, 1, c) + 8 for c in MOST]
    copies = [launches(everything, 2, c) for c in MOST]
    add("update", 2, plain)
    add("with 16-bit copies", 2, map(sum, zip(plain, copies, strict=True)))
    add("with copies and clipping", 3, map(sum, zip(plain, copies, clip, strict=True)))
    return aligned(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--sequences", type=int, help="default: 256 on a GPU, 8 on a CPU")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    keep_freed_memory()
    facts = environment(torch.device(given.device))
    sequences = given.sequences or (256 if given.device == "cuda" else 8)
    print(f"{facts['device_name']}, {facts['date']}, torch {facts['torch']}, {sequences} sequences")
    print(busy_warning() or "the machine is quiet")
    rows = [["precision", "clipping", "fastamr ms", "torch ms", "gain", "verdict"]]
    for dtype in (torch.float32, torch.bfloat16):
        if reason := missing_instructions(torch.device(given.device), dtype):
            print(reason)
            continue
        for clip in (None, MAX_NORM):
            rows.append(compare(dtype, clip, sequences, given.device, given.rounds))
            print("  ".join(rows[-1]), flush=True)
    print(f"\n{aligned(rows)}\n\n{launch_table()}")


if __name__ == "__main__":
    main()
