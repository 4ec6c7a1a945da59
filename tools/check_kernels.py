#!/usr/bin/env python
"""Compile every Triton kernel ahead of time, without a GPU, and refuse spills.

Each op is called at the papers' shapes while launches are only written down; what its launcher chose is then compiled
for each architecture, and registers, shared memory, spills and vectorised accesses are read off the machine code.

    python tools/check_kernels.py                           with the installed Triton, for sm_80, sm_90 and sm_100
    python tools/check_kernels.py --arch 90 --only loss     one architecture, cases whose name contains "loss"
    python tools/check_kernels.py --triton-path FOLDER      with another Triton, unpacked by pip install --target
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 90, 100)
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Usage:
    """What one compiled kernel takes."""

    registers: int
    shared: int
    spills: int
    vector_loads: int
    loads: int


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", default=list(ARCHITECTURES), help="80 90 100")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--triton-path", default="", help="folder that holds another Triton")
    return parser.parse_args()


def describe(launch: Any) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list]]:
    """Signature, constants and divisibility hints, as Triton's runtime derives them from the arguments."""
    import torch

    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int32: "i32"}
    names |= {torch.int64: "i64", torch.bool: "i1", torch.float64: "fp64", torch.int16: "i16"}
    from triton.tools.tensor_descriptor import TensorDescriptor

    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    hints: dict[tuple[int], list] = {}
    for position, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        value = launch.arguments.get(name, parameter.default)
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, TensorDescriptor):
            tile = ",".join(map(str, value.block_shape))
            signature[name] = f"tensordesc<{names[value.base.dtype]}[{tile}]>"
        elif isinstance(value, torch.Tensor):
            signature[name] = f"*{names[value.dtype]}"
            hints[position,] = [["tt.divisibility", 16]]
        elif isinstance(value, bool):
            signature[name] = "u1"
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                hints[position,] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32"
    return signature, constants, hints


def compile_launch(launch: Any, architecture: int) -> Usage:
    """Compile what was written down for one architecture."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, hints = describe(launch)
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=hints)
    options = {"num_warps": launch.config.num_warps, "num_stages": launch.config.num_stages}
    # On an error of the assembler Triton prints the whole program.
    with contextlib.redirect_stdout(io.StringIO()):
        compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    text = compiled.asm["ptx"]
    vector = len(re.findall(r"ld\.global\S*\.v[248]", text))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = run_tool("cuobjdump", "-res-usage", file.name)
        code = run_tool("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump prints no resource usage: {usage}")
    # A stack alone may hold what a library function needs; spilling shows as local loads and stores.
    spills = len(re.findall(r"\b(?:STL|LDL)\b", code)) + int(found[4])
    loads = len(re.findall(r"ld\.global", text))
    return Usage(int(found[1]), compiled.metadata.shared, spills, vector, loads)


def run_tool(name: str, *arguments: str) -> str:
    """Output of a binary that Triton's wheel carries."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    run = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{name} failed: {run.stderr}")
    return run.stdout + run.stderr


def cases() -> dict[str, Callable[[], object]]:
    """Calls of every op: the papers' shapes, and whole-body layouts (133 joints) beside them."""
    import torch

    import fastamr.ops  # noqa: F401 -- registers the ops
    from fastamr.testing import random_clips

    op = torch.ops.fastamr
    sequences, tokens, visible, width = 256, 750, 75, 256
    bf16, seed = torch.bfloat16, torch.tensor([1, 0])
    clips, body = random_clips(sequences), random_clips(4, 64, 133)
    keep = torch.zeros(sequences, visible, dtype=torch.int32)
    weight, bias, position = torch.zeros(width, 12), torch.zeros(width), torch.zeros(tokens, width)
    tokens_grad = torch.zeros(sequences, visible, width, dtype=bf16)
    valid, scores = torch.ones(sequences, 120, 25, dtype=torch.bool), torch.zeros(sequences, tokens)
    guidance, mask = torch.zeros(sequences, 120, 25), torch.ones(sequences, tokens, dtype=torch.bool)
    amr, mae = torch.zeros(sequences, 125, 72, dtype=bf16), torch.zeros(sequences, tokens, 12, dtype=bf16)
    coords, offsets = torch.zeros(9000, 25, 3, dtype=torch.float16), torch.arange(0, 9001, 90)
    ids = torch.zeros(sequences, dtype=torch.int64)

    def loss(prediction: torch.Tensor, *rest: object) -> object:
        return op.weighted_reconstruction_loss(prediction, *rest, 1e-6, "triton")

    def select(scores: object, valid: object, extra: bool, tokens: int = tokens) -> object:
        return op.select_visible(
            seed, sequences, tokens, tokens // 10, scores, False, valid, extra, extra, "triton"
        )

    def adamw(kinds: tuple[torch.dtype, ...], copies: bool, max_norm: float | None, scaled: bool) -> object:
        sizes = ((width, 4 * width), (width,), (3,))
        lists = [[torch.zeros(size) for size in sizes] for _ in range(3)]
        gradients = [torch.zeros(size, dtype=kinds[i % len(kinds)]) for i, size in enumerate(sizes)]
        copied = [torch.zeros(size, dtype=bf16) for size in sizes] if copies else []
        steps, rate = [torch.zeros(()) for _ in sizes], torch.zeros(())
        found, scale = (torch.zeros(()), torch.ones(())) if scaled else (None, None)
        return op.adamw_update(
            lists[0],
            gradients,
            lists[1],
            lists[2],
            steps,
            [rate] * 3,
            [0.05] * 3,
            copied,
            0.9,
            0.95,
            1e-8,
            max_norm,
            scale,
            found,
            "triton",
        )

    return {
        "adamw_update": lambda: adamw((torch.float32,), False, None, False),
        "adamw_update bf16 clip": lambda: adamw((bf16,), True, 1.0, False),
        "adamw_update fp16 scaled": lambda: adamw((torch.float16,), True, 1.0, True),
        "adamw_update mixed": lambda: adamw((torch.float32, bf16, torch.float16), True, 1.0, True),
        "select_visible": lambda: select(None, None, False),
        "select_visible all outputs": lambda: select(None, mask, True),
        "select_visible scores": lambda: select(scores, None, False),
        "select_visible body": lambda: select(None, None, False, 2128),
        "patch_gather": lambda: op.patch_gather(clips, keep, 4, "triton"),
        "masked_patch_gather": lambda: op.masked_patch_gather(
            clips, keep, weight, bias, position, 4, bf16, "triton"
        ),
        "masked_patch_gather_backward": lambda: op.masked_patch_gather_backward(
            tokens_grad, clips, keep, tokens, 4, torch.float32, "triton"
        ),
        "motion_entropy": lambda: op.motion_entropy(clips, 8, None, 1e-8, "triton"),
        "motion_entropy body valid": lambda: op.motion_entropy(body, 8, body[..., 0] > 0, 1e-8, "triton"),
        "motion_guidance": lambda: op.motion_guidance(
            clips, [4, 8, 12], 0.01, 1e-8, "entropy", 8, None, "triton"
        ),
        "motion_guidance valid": lambda: op.motion_guidance(
            clips, [4, 8, 12], 0.01, 1e-8, "entropy", 8, valid, "triton"
        ),
        "motion_guidance histogram": lambda: op.motion_guidance(
            clips, [4, 8, 12], 0.01, 1e-8, "histogram", 8, None, "triton"
        ),
        "motion_guidance body": lambda: op.motion_guidance(
            body, [4, 8, 12], 0.01, 1e-8, "entropy", 8, None, "triton"
        ),
        "loss amr": lambda: loss(amr, clips, guidance, None, None, 24, 1, "motion", 1, "sequence"),
        "loss amr valid": lambda: loss(amr, clips, guidance, None, valid, 24, 1, "motion", 1, "sequence"),
        "loss mae": lambda: loss(mae, clips, None, mask, None, 4, 1, "joints", 1, "none"),
        "loss mamp": lambda: loss(mae, clips, None, mask, None, 4, 1, "motion", 1, "patch"),
        "loss long": lambda: loss(
            torch.zeros(4, 300, 75, dtype=bf16), random_clips(4, 300), None, None, None, 25, 1, "motion", 1,
            "sequence",
        ),
        "sample_clips": lambda: op.sample_clips(
            coords, offsets, ids, 120, seed, [0.5, 1.0], 64, 0.3, None, "triton"
        ),
    }  # fmt: skip


def row_cases(dtype: Any, rows: int, width: int, features: int) -> dict[str, Callable[[], object]]:
    """Calls of the kernels on flat rows, whose ops would not take CPU tensors without the interpreter."""
    import torch
    from fastamr.kernels.linear_gelu import linear_gelu, linear_gelu_backward
    from fastamr.kernels.linear_residual_norm import linear_residual_norm, linear_residual_norm_backward
    from fastamr.kernels.weight_gradient import weight_gradient, weight_gradients

    name = f"{width} {str(dtype).removeprefix('torch.')}"
    narrow, wide = torch.empty(rows, width, dtype=dtype), torch.empty(rows, features, dtype=dtype)
    up, down = torch.empty(features, width, dtype=dtype), torch.empty(width, features, dtype=dtype)
    vector, bias, statistics = torch.empty(width), torch.empty(features), torch.empty(rows)

    wider = torch.empty(rows, 3 * width, dtype=dtype)
    layer = [(narrow, wide), (wide, narrow), (narrow, narrow), (wider, narrow)]

    def backward(skip: object) -> object:
        return linear_residual_norm_backward(wide, up, narrow, statistics, statistics, vector, skip)

    return {
        f"linear_gelu {name}": lambda: linear_gelu(narrow, up, bias, slope=True),
        f"linear_gelu no slope {name}": lambda: linear_gelu(narrow, up, bias, slope=False),
        f"linear_gelu backward {name}": lambda: linear_gelu_backward(narrow, down, wide),
        f"linear_residual_norm {name}": lambda: linear_residual_norm(
            wide, down, vector, narrow, vector, vector, 1e-5
        ),
        f"residual_norm backward {name}": lambda: backward(narrow),
        f"same without skip {name}": lambda: backward(None),
        f"weight_gradient {name}": lambda: weight_gradient(wide, narrow, None),
        f"weight_gradients {name}": lambda: weight_gradients(layer),
    }


def all_cases() -> dict[str, Callable[[], object]]:
    """Every case: those of the ops, and the kernels on flat rows at the papers' width, beside it, and in float32."""
    import torch

    found = cases()
    for dtype, *sizes in (
        (torch.bfloat16, 32000, 256, 1024),
        (torch.float16, 32000, 512, 2048),
        (torch.float32, 32000, 256, 1024),
        (torch.bfloat16, 3000, 44, 100),
    ):
        found |= row_cases(dtype, *sizes)
    return found


def main() -> int:
    """Print the table; 1 if anything spills or does not compile."""
    arguments = parse_arguments()
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path[:0] = [folder for folder in (arguments.triton_path, str(ROOT)) if folder]
    import triton
    from fastamr.kernels.launch import record

    print(f"Triton {triton.__version__}")
    print(
        f"{'case':36} {'kernel':30} {'sm':>4} {'warps':>5} {'regs':>5} {'smem':>6} {'spills':>6}  vector/loads  blocks"
    )
    bad = seen = 0
    for name, call in all_cases().items():
        if arguments.only not in name:
            continue
        for architecture in arguments.arch:
            with record(architecture) as launches:
                call()
            if not launches:
                print(f"{name:36} {architecture:>27} launched nothing")
                bad += 1
            for launch in launches:
                seen += 1
                head = f"{name:36} {launch.kernel.__name__:30} {architecture:>4} {launch.config.num_warps:>5}"
                try:
                    usage = compile_launch(launch, architecture)
                except Exception as error:
                    print(f"{head} FAILED {type(error).__name__}: {str(error)[:600]}")
                    bad += 1
                    continue
                blocks = " ".join(f"{key}={value}" for key, value in launch.config.blocks.items())
                print(
                    f"{head} {usage.registers:>5} {usage.shared:>6} {usage.spills:>6}  "
                    f"{usage.vector_loads:>3}/{usage.loads:<3}       {blocks}"
                )
                bad += usage.spills > 0
    print(f"{seen} compilations, {bad} with spills or errors")
    return int(bad > 0 or seen == 0)


if __name__ == "__main__":
    sys.exit(main())
