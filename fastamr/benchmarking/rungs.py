"""The rungs of the ladder: one training step in ever better form; and a rung as it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import native
from ..devices import missing_instructions, processor_features
from ..errors import check_name


@dataclass(frozen=True)
class Rung:
    """One form of the training step.

    Attributes:
        name: what ``--rungs`` takes.
        title: what tables and charts say.
        model: ``skeleton_mae``, ``amr`` or ``slim``.
        precision: see :data:`fastamr.benchmarking.plain_step.PRECISIONS`; ``amp`` is autocast to float16 on a GPU
            and to bfloat16 on a CPU.
        attention: of the plain forms.
        compiled: with ``torch.compile``.
        fused: with AdamW's fused implementation; on a CPU all rungs have it, so that no ratio comes from there.
        graph: in one CUDA graph.
        fast: with all that the library has instead of plain PyTorch: its own step, fused stacks, attention, one graph.
        branch: its weights' gradients on a second branch of the graph.
        backends: back ends that it names, by op.
        only: device type that the rung is for, or None for all.
        long_on_cpu: why a CPU runs it only where it is asked for, or None.
    """

    name: str
    title: str
    model: str
    precision: str
    attention: str = "sdpa"
    compiled: bool = False
    fused: bool = True
    graph: bool = False
    fast: bool = False
    branch: bool = False
    backends: tuple[tuple[str, str], ...] = ()
    only: str | None = None
    long_on_cpu: str | None = None

    @property
    def is_released(self) -> bool:
        """Whether it is the public code of SkeletonMAE as far as this library rebuilds it."""
        return self.attention == "materialised"

    def precision_on(self, device: torch.device) -> str:
        """The precision with ``amp`` resolved."""
        if self.precision != "amp":
            return self.precision
        return "float16" if device.type == "cuda" else "bfloat16"

    def heading(self, device: torch.device) -> str:
        """The title for a device: on a CPU autocast is to bfloat16, every AdamW is fused, and TF32 has another name."""
        title = self.title.format(amp="fp16" if device.type == "cuda" else "bf16")
        if device.type == "cuda":
            return title
        return title.replace(", fused AdamW", "").replace("TF32", "fp32 products 'high'")


@dataclass
class Row:
    """A rung as measured; what was not measured is None.

    Attributes:
        name: of the rung.
        title: of the rung.
        model: its model.
        fast: the library's own step.
        released: SkeletonMAE's public code as rebuilt here.
        reason: why it was not measured.
        wrong: it disagrees with the reference.
        ms: median milliseconds of an update.
        rounds_ms: milliseconds of each timed update.
        prepare_seconds: the first update and those until the step is compiled and recorded, which are not timed.
        sequences_per_second: S over the median.
        peak_bytes: peak memory, see :class:`~fastamr.benchmarking.timing.PeakMemory`.
        mfu: step FLOPs over the median over the device's known 16-bit peak.
        tflop: step FLOPs in 1e12, see :func:`~fastamr.benchmarking.cost.step_flops`.
        loss: of the first update.
        error: its relative difference to the float64 loss.
        tolerance: the largest difference allowed.
        clocks: of the GPU right after the timed updates.
        recorded: the timed updates were replays of one CUDA graph.
        graph_reason: why the library's own step was not recorded.
    """

    name: str
    title: str
    model: str
    fast: bool
    released: bool
    reason: str | None = None
    wrong: bool = False
    ms: float | None = None
    rounds_ms: list[float] = field(default_factory=list)
    prepare_seconds: float | None = None
    sequences_per_second: float | None = None
    peak_bytes: int | None = None
    mfu: float | None = None
    tflop: float | None = None
    loss: float | None = None
    error: float | None = None
    tolerance: float | None = None
    clocks: dict[str, float] | None = None
    recorded: bool | None = None
    graph_reason: str | None = None


@dataclass
class Ladder:
    """All rungs and what they were measured with."""

    environment: dict[str, Any]
    sequences: int
    clip_shape: list[int]
    architecture: dict[str, Any]
    rows: list[Row]

    @property
    def wrong(self) -> list[Row]:
        """Rungs that disagree with the reference."""
        return [row for row in self.rows if row.wrong]


RUNGS = (
    Rung("mae-fp32", "SkeletonMAE as released, fp32", "skeleton_mae", "float32", "materialised", fused=False),
    Rung("mae-tf32", "SkeletonMAE as released, TF32", "skeleton_mae", "tf32", "materialised", fused=False),
    Rung("mae-amp", "SkeletonMAE as released, {amp} autocast", "skeleton_mae", "amp", "materialised",
         fused=False),
    Rung("mae-sdpa-fp32", "SkeletonMAE, SDPA, fp32", "skeleton_mae", "float32", only="cpu"),
    Rung("mae-sdpa", "SkeletonMAE, SDPA, bf16", "skeleton_mae", "bfloat16", fused=False),
    Rung("mae-compiled", "SkeletonMAE, SDPA, bf16, compiled, fused AdamW", "skeleton_mae", "bfloat16",
         compiled=True),
    Rung("amr-fp32", "AMR, plain PyTorch, fp32", "amr", "float32", only="cpu"),
    Rung("amr-tf32", "AMR, plain PyTorch, TF32", "amr", "tf32"),
    Rung("amr-bf16", "AMR, plain PyTorch, bf16", "amr", "bfloat16"),
    Rung("amr-compiled", "AMR, plain PyTorch, bf16, compiled", "amr", "bfloat16", compiled=True),
    Rung("amr-graph", "AMR, plain PyTorch, bf16, compiled, CUDA graph", "amr", "bfloat16", compiled=True,
         graph=True, only="cuda"),
    Rung("fastamr-fp32", "fastamr, fp32", "amr", "float32", fast=True),
    Rung("fastamr-tf32", "fastamr, TF32", "amr", "tf32", fast=True),
    Rung("fastamr-bf16", "fastamr, bf16", "amr", "bfloat16", fast=True),
    Rung("fastamr-branch", "fastamr, bf16, weight-gradient branch", "amr", "bfloat16", fast=True, branch=True,
         only="cuda"),
    Rung("fastamr-attention", "fastamr, bf16, own CUDA attention", "amr", "bfloat16", fast=True,
         backends=(("visible_attention", "cuda"),), only="cuda"),
    Rung("fastmae-fp32", "SkeletonMAE, fastamr, fp32", "skeleton_mae", "float32", fast=True),
    Rung("fastmae-bf16", "SkeletonMAE, fastamr, bf16", "skeleton_mae", "bfloat16", fast=True),
    Rung("fastslim-bf16", "SLiM, fastamr, bf16", "slim", "bfloat16", fast=True,
         long_on_cpu="65,536 prototypes take long on a CPU"),
)  # fmt: skip
"""From the public code to the library's own step, which alone samples its clips inside the step; then SkeletonMAE by
the same step, so that what the algorithm saves and what the kernels save are told apart; last SLiM, at its own length
of clips and patches, which has no decoder to save."""

_NAMES = [rung.name for rung in RUNGS]
_DEVICES = {"cuda": "an NVIDIA GPU", "cpu": "the CPU"}
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_rungs(wanted: Sequence[str], device: torch.device) -> list[tuple[Rung, str | None]]:
    """Return the rungs that are asked for, each with the reason why it is not run here, or None.

    Args:
        wanted: names of rungs, or ``all``; empty is all that the device runs in reasonable time: without
            ``torch.compile`` on a CPU.
        device: where the ladder runs.

    Raises:
        ValueError: an unknown rung (with the nearest name).
    """
    for name in wanted:
        check_name("rung", name, [*_NAMES, "all"])
    every = not wanted or "all" in wanted
    chosen = [rung for rung in RUNGS if every or rung.name in wanted]
    return [
        (rung, why_not(rung, device, named=rung.name in wanted, compiles="all" in wanted)) for rung in chosen
    ]


def why_not(rung: Rung, device: torch.device, *, named: bool, compiles: bool = False) -> str | None:
    """Return why a rung does not run on a device, or None if it does.

    Args:
        rung: the rung.
        device: the device.
        named: the user asked for this very rung, which then runs even where it is emulated or the same as another.
        compiles: the user asked for all rungs, those that are compiled for minutes included.
    """
    if rung.only is not None and rung.only != device.type:
        return f"for {_DEVICES[rung.only]} only"
    if named:
        return None
    if rung.compiled and device.type == "cpu" and not compiles:
        return "torch.compile takes minutes on a CPU: ask with --rungs all"
    if rung.long_on_cpu and device.type == "cpu" and not compiles:
        return f"{rung.long_on_cpu}: ask with --rungs {rung.name}"
    dtype = _DTYPES.get(rung.precision_on(device))
    if dtype is not None and (reason := missing_instructions(device, dtype)):
        return f"{reason}; --rungs {rung.name} runs it all the same"
    if rung.precision == "tf32" and device.type == "cpu" and not _has_shorter_products(rung):
        return "the same as float32: this processor has no instructions for shorter float32 products"
    return None


def _has_shorter_products(rung: Rung) -> bool:
    """Whether the CPU multiplies float32 with fewer bits where it may: the library by AMX, PyTorch by AMX_FP16."""
    return native.has_matrix_unit() if rung.fast else bool(processor_features().get("amx_fp16", False))
