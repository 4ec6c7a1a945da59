#!/usr/bin/env python
"""Compile every Triton kernel ahead of time, without a GPU, and refuse spills.

The cases of fastamr.testing.op_cases are called at the papers' shapes while launches are only written down; what the
launchers chose, and every other candidate that timing could choose, is then compiled for each architecture, and
registers, shared memory, spills and vectorised accesses are read off the machine code.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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


def named_calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """A name and a call of the launchers for each case of the table of ops, at each of the sizes that it names."""
    from fastamr.testing.op_cases import CASES, PASSES

    for case in (*CASES, *PASSES):
        for sizes in case.compiled:
            yield (
                f"{case.label}, {sizes.label}",
                partial(lambda case, s: case.launch(case.arguments(s)), case, sizes),
            )


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
        f"{'case':48} {'kernel':30} {'sm':>4} {'warps':>5} {'regs':>5} {'smem':>6} {'spills':>6}  vector/loads  blocks"
    )
    bad = seen = 0
    for name, call in named_calls():
        if arguments.only not in name:
            continue
        for architecture in arguments.arch:
            with record(architecture, every=True) as launches:
                call()
            if not launches:
                print(f"{name:48} {architecture:>27} launched nothing")
                bad += 1
            for launch in launches:
                seen += 1
                head = f"{name:48} {launch.kernel.__name__:30} {architecture:>4} {launch.config.num_warps:>5}"
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
