"""How kernels are launched: block sizes from a table, on the tensor's device and the current stream.

A launcher passes its candidates, best first, to :func:`pick`; the first one runs unless ``FASTAMR_AUTOTUNE=1`` asks
for timing, or :func:`take` brought what ``fastamr tune`` had timed before. Inside :func:`record` a launch is written
down instead of run, which lets the ahead-of-time check compile exactly the configurations that the launchers choose,
without a GPU.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import triton


@dataclass(frozen=True)
class Config:
    """Block sizes (the kernel's constexpr arguments of these names) and how many warps share them."""

    blocks: dict[str, int] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2


@dataclass(frozen=True)
class Launch:
    """A launch that was written down: what :func:`launch` would have run."""

    kernel: Any
    grid: tuple[int, ...]
    config: Config
    arguments: dict[str, Any]


_recorded: list[Launch] | None = None
_records_every = False
_assumed_architecture = 90
# Multiprocessors of the GPUs that are assumed where there is none: A100, H100, B200.
_MULTIPROCESSORS = {80: 108, 90: 132, 100: 148}
_tuned: dict[tuple[object, ...], Config] = {}
# What was timed in another process: blocks, warps and stages by kernel and class.
_given: dict[tuple[str, str], tuple[dict[str, int], int, int]] = {}
_resolved: dict[tuple[str, tuple[object, ...]], Config] = {}


@contextmanager
def record(architecture: int = 90, *, every: bool = False) -> Iterator[list[Launch]]:
    """Write launches down instead of running them; outputs stay uninitialised. Not for concurrent use.

    Args:
        architecture: what the launchers choose for, see :func:`assume`.
        every: also those of all other candidates that :func:`pick` could take.
    """
    global _recorded, _records_every
    _recorded, _records_every = [], every
    try:
        with assume(architecture):
            yield _recorded
    finally:
        _recorded, _records_every = None, False


@contextmanager
def assume(architecture: int) -> Iterator[None]:
    """Launchers choose for this compute capability (80, 90, 100 ...) where there is no GPU. Not for concurrent use."""
    global _assumed_architecture
    before = _assumed_architecture
    _assumed_architecture = architecture
    try:
        yield
    finally:
        _assumed_architecture = before


def architecture(device: torch.device) -> int:
    """Compute capability as a number: 80, 90, 100; for tensors on a CPU the assumed one."""
    if device.type != "cuda":
        return _assumed_architecture
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def suited(candidates: Sequence[Config], rows: int, device: torch.device) -> tuple[Config, ...]:
    """Candidates in the order in which they suit a number of rows, for :func:`pick`; equal ones stay in theirs.

    First comes the one whose busiest multiprocessor has the fewest rows: on 132 of them 19,200 rows leave it 192 in
    blocks of 64 and 256 in blocks of 128. Of equal ones, as 32,000 rows make these two, the taller block is first:
    it reads the other operand less often.

    Args:
        candidates: with ``BLOCK_ROWS``, or ``SHARE``, the rows of a program that takes several blocks.
        rows: M.
        device: of the tensors.
    """
    if device.type == "cuda":
        count = torch.cuda.get_device_properties(device).multi_processor_count
    else:
        count = _MULTIPROCESSORS.get(_assumed_architecture, _MULTIPROCESSORS[90])

    def rank(config: Config) -> tuple[int, int]:
        tall = config.blocks.get("SHARE", config.blocks["BLOCK_ROWS"])
        return triton.cdiv(triton.cdiv(rows, tall), count) * tall, -tall

    return tuple(sorted(candidates, key=rank))


def interpreted(device: torch.device) -> bool:
    """Whether a launch would run in Triton's interpreter."""
    return device.type == "cpu" and _recorded is None


def launch(
    kernel: Any, grid: tuple[int, ...], device: torch.device, config: Config, **arguments: object
) -> None:
    """Run ``kernel`` over ``grid`` on ``device`` and the stream that is current there.

    Args:
        kernel: a function decorated with ``triton.jit``.
        grid: programs in each dimension; nothing runs if one is 0.
        device: of the tensors.
        config: blocks and warps.
        arguments: the kernel's other arguments by name.
    """
    if 0 in grid:
        return
    if _recorded is not None:
        _recorded.append(Launch(kernel, grid, config, {**arguments, **config.blocks}))
        return
    on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with on_device:
        kernel[grid](**arguments, **config.blocks, num_warps=config.num_warps, num_stages=config.num_stages)


def pick(
    name: str,
    shape_class: tuple[object, ...],
    candidates: Sequence[Config],
    run: Callable[[Config], object],
    device: torch.device,
) -> Config:
    """The configuration for a shape class: the first candidate, what :func:`take` gave, or the fastest.

    With ``FASTAMR_AUTOTUNE=1`` the fastest is found by timing: every candidate once per process, kernel, shape class
    and kind of GPU, never while a CUDA graph is being captured. Sums may then differ in their last bit from one process
    to the next, so under ``torch.use_deterministic_algorithms`` the first candidate runs, whatever was tuned or given.

    Args:
        name: of the kernel.
        shape_class: what the choice depends on; of a number of rows its :func:`row_class`.
        candidates: best first.
        run: launches the kernel with a configuration; must be repeatable.
        device: of the tensors.
    """
    if _recorded is not None and _records_every:
        for config in candidates[1:]:
            run(config)
        return candidates[0]
    if torch.are_deterministic_algorithms_enabled():
        return candidates[0]
    tuning = len(candidates) > 1 and _tuning(device)
    # What was tuned before a capture is what the capture holds.
    is_known = _tuned or _given
    if not tuning and (
        not is_known or device.type != "cuda" or _recorded is not None or len(candidates) == 1
    ):
        return candidates[0]
    key = (name, *shape_class, torch.cuda.get_device_capability(device))
    if key not in _tuned:
        if not tuning:
            return _taken(name, shape_class, candidates)
        with torch.cuda.device(device):
            times = [triton.testing.do_bench(lambda c=config: run(c)) for config in candidates]
        _tuned[key] = candidates[times.index(min(times))]
    return _tuned[key]


def row_class(rows: int) -> int:
    """The class of a number of rows, half an octave wide: 19,200 and 32,000 rows may want different blocks."""
    return round(2 * math.log2(max(rows, 1)))


def tuned() -> list[dict[str, Any]]:
    """What was timed in this process, as plain values for :func:`take` in another one on the same GPU."""
    return [
        {
            "kernel": str(name),
            "shape": repr(tuple(shape_class)),
            "blocks": config.blocks,
            "warps": config.num_warps,
            "stages": config.num_stages,
        }
        for (name, *shape_class, _), config in _tuned.items()
    ]


def take(given: Mapping[tuple[str, str], tuple[dict[str, int], int, int]]) -> None:
    """Take blocks, warps and stages by kernel and class, as :func:`tuned` lists them, where they are candidates."""
    _given.update(given)
    _resolved.clear()


def _taken(name: str, shape_class: tuple[object, ...], candidates: Sequence[Config]) -> Config:
    """What was given for a class, if it is a candidate; else the first one."""
    if (name, shape_class) not in _resolved:
        found = _given.get((name, repr(shape_class)))
        same = (each for each in candidates if (each.blocks, each.num_warps, each.num_stages) == found)
        _resolved[name, shape_class] = next(same, candidates[0])
    return _resolved[name, shape_class]


def _tuning(device: torch.device) -> bool:
    return (
        os.environ.get("FASTAMR_AUTOTUNE") == "1"
        and device.type == "cuda"
        and _recorded is None
        and not torch.cuda.is_current_stream_capturing()
    )
