from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastamr
from fastamr import ops
from fastamr.ops.common import triton_support
from fastamr.ops.common.backends import Problem, choose
from fastamr.ops.common.triton_support import triton_why_not
from fastamr.testing import random_clips

ROOT = Path(__file__).resolve().parents[3]
KERNEL_OPS = (
    "augment_clips",
    "masked_patch_gather",
    "motion_entropy",
    "motion_guidance",
    "patch_gather",
    "sample_clips",
    "select_visible",
    "weighted_reconstruction_loss",
)


@pytest.mark.parametrize("op", KERNEL_OPS)
def test_a_gpu_takes_the_kernels_and_a_cpu_does_not(op: str) -> None:
    assert choose(op, Problem("cuda", torch.float32)) == "triton"
    assert choose(op, Problem("cuda", torch.bfloat16)) == "triton"
    assert choose(op, Problem("cpu", torch.float32)) == "reference"


@pytest.mark.parametrize("op", KERNEL_OPS)
def test_float64_takes_the_reference(op: str) -> None:
    problem = Problem("cuda", torch.float64)
    assert choose(op, problem) == "reference"
    with pytest.raises(RuntimeError, match="the kernels compute in float32; float64 takes the reference"):
        choose(op, problem, "triton")


def test_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert triton_why_not(Problem("cuda", torch.float16)) is None
    refused = Problem("cuda", torch.float32, refusals=("a", "b"))
    assert triton_why_not(refused) == "the kernels do not cover a and b"
    assert "on 'mps'" in str(triton_why_not(Problem("mps", torch.float32)))
    monkeypatch.setattr(triton_support, "_INTERPRETED", False)
    assert "TRITON_INTERPRET=1" in str(triton_why_not(Problem("cpu", torch.float32)))
    monkeypatch.setattr(triton_support, "_INSTALLED", False)
    assert "pip install 'fastamr[triton]'" in str(triton_why_not(Problem("cuda", torch.float32)))


def test_a_wide_input_beside_a_narrow_one_takes_the_reference() -> None:
    """One float64 tensor among the inputs is enough: the kernels would round it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    clips = random_clips(1, 8, 3, device=device)
    prediction = torch.zeros(1, 6, 12, device=device)
    with fastamr.backend("triton"):
        with pytest.raises(RuntimeError, match="float64"):
            ops.weighted_reconstruction_loss(prediction, clips.double(), target_frames=4)
        with pytest.raises(RuntimeError, match="float64"):
            ops.weighted_reconstruction_loss(prediction.double(), clips, target_frames=4)
        keep = torch.zeros(1, 1, dtype=torch.int32, device=device)
        weight = torch.zeros(4, 12, dtype=torch.float64, device=device)
        with pytest.raises(RuntimeError, match="float64"):
            ops.masked_patch_gather(
                clips, keep, weight, weight[:, 0], weight[:6].new_zeros(6, 4), patch_frames=4
            )


def test_a_cpu_without_the_interpreter_says_so() -> None:
    code = (
        "import torch, fastamr\nfrom fastamr import ops\n"
        "with fastamr.backend('triton'):\n"
        "    ops.motion_entropy(torch.zeros(1, 8, 3, 3), window=4)\n"
    )
    environment = {"PATH": "", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 1
    assert "backend 'triton' cannot run motion_entropy: Triton needs a GPU" in run.stderr
