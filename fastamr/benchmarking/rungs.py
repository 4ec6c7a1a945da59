"""The rungs of the ladder: one training step in ever better form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import check_name


@dataclass(frozen=True)
class Rung:
    """One form of the training step.

    Attributes:
        name: what ``--rungs`` takes.
        title: what tables and charts say.
        model: ``skeleton_mae`` or ``amr``.
        precision: see :data:`fastamr.benchmarking.plain_step.PRECISIONS`; ``amp`` is autocast to float16 on a GPU
            and to bfloat16 on a CPU.
        attention: of the plain forms.
        compiled: with ``torch.compile``.
        fused: with AdamW's fused implementation; on a CPU all rungs have it, so that no ratio comes from there.
        graph: in one CUDA graph.
        fast: the library's own step instead of plain PyTorch.
        branch: its weights' gradients on a second branch of the graph.
        backends: back ends that it names, by op.
        only: device type that the rung is for, or None for all.
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


RUNGS = (
    Rung("mae-fp32", "SkeletonMAE as released, fp32", "skeleton_mae", "float32", "materialised", fused=False),
    Rung("mae-tf32", "SkeletonMAE as released, TF32", "skeleton_mae", "tf32", "materialised", fused=False),
    Rung("mae-amp", "SkeletonMAE as released, {amp} autocast", "skeleton_mae", "amp", "materialised",
         fused=False),
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
)  # fmt: skip
"""From the public code to the library's own step; only the latter samples its clips inside the step."""

_NAMES = [rung.name for rung in RUNGS]
_DEVICES = {"cuda": "an NVIDIA GPU", "cpu": "the CPU"}


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
    return [
        (rung, why_not(rung, device, named=bool(wanted))) for rung in RUNGS if every or rung.name in wanted
    ]


def why_not(rung: Rung, device: torch.device, *, named: bool) -> str | None:
    """Return why a rung does not run on a device, or None if it does.

    Args:
        rung: the rung.
        device: the device.
        named: the user asked for it (or for all).
    """
    if rung.only is not None and rung.only != device.type:
        return f"for {_DEVICES[rung.only]} only"
    if rung.compiled and device.type == "cpu" and not named:
        return "torch.compile takes minutes on a CPU: ask with --rungs all"
    return None
