#!/usr/bin/env python
"""Check the CUDA attention kernels without a GPU: registers and spills by nvcc, numbers and races by emulation.

Every kernel is compiled for each architecture; registers, stack and spills are read from the assembler's report, and
any spill fails. The same tile code is then built for the host, lane by lane (tests/csrc/gpu_emulator.h), and compared
with attention in float64, once plain and once under AddressSanitizer and UndefinedBehaviorSanitizer.

    python tools/check_cuda.py                         everything, for sm_80, sm_90 and sm_100
    python tools/check_cuda.py --arch 90 --only _32    one architecture, sources whose name contains "_32"
    python tools/check_cuda.py --skip-emulation        the compiler's table alone
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from check_cpu_kernel import SANITIZE, TESTS  # noqa: E402

from fastamr.host import allowed_cpus  # noqa: E402
from fastamr.native.build import find_torch, nvcc_flags  # noqa: E402
from fastamr.tables import aligned  # noqa: E402

CUDA = ROOT / "csrc" / "cuda"
ARCHITECTURES = (80, 90, 100)
FORMS = ("exact", "small", "medium", "full")
HOST_FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-I", str(TESTS), "-I", str(CUDA))


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture."""

    kernel: str
    architecture: int
    registers: int
    shared: int
    stack: int
    spills: int


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", default=list(ARCHITECTURES), help="80 90 100")
    parser.add_argument("--only", default="", help="sources whose name contains this")
    parser.add_argument("--jobs", type=int, default=max(1, allowed_cpus() // 2), help="compilers at a time")
    parser.add_argument("--skip-emulation", action="store_true", help="only compile with nvcc")
    parser.add_argument("--skip-nvcc", action="store_true", help="only emulate")
    return parser.parse_args()


def readable(mangled: str) -> str:
    """``forward bf16 E=32 exact`` from a kernel's mangled name."""
    direction = re.search(r"(forward|backward|reduce)_kernel", mangled)
    if direction is None:
        return mangled
    form = re.search(r"Li(\d+)ELNS\d_4FormE(\d)E", mangled)
    if form is None:
        return direction[1]
    dtype = "fp16" if re.search(r"kernelINS\d_4HalfE", mangled) else "bf16"
    return f"{direction[1]:8} {dtype} E={form[1]} {FORMS[int(form[2])]}"


def usages_of(report: str, architecture: int) -> list[Usage]:
    """Every kernel of an ``nvcc -Xptxas -v`` report."""
    found = []
    for part in report.split("Compiling entry function '")[1:]:
        name = part.split("'")[0]
        memory = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        registers = re.search(r"Used (\d+) registers", part)
        if memory is None or registers is None:
            raise RuntimeError(f"nvcc's report on {name} holds no registers or spills:\n{part}")
        shared = re.search(r"(\d+) bytes smem", part)
        found.append(
            Usage(
                readable(name),
                architecture,
                int(registers[1]),
                int(shared[1]) if shared else 0,
                int(memory[1]),
                int(memory[2]) + int(memory[3]),
            )
        )
    return found


def compile_source(source: Path, architecture: int, folder: Path) -> list[Usage]:
    """Compile one source for one architecture; RuntimeError with the compiler's words if that fails."""
    target = folder / f"{source.stem}.{architecture}.o"
    code = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    options = ["-Xptxas", "-v", "-x", "cu", "-c", str(source), "-o", str(target)]
    command = ["nvcc", *nvcc_flags(find_torch()), code, *options]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr}")
    return usages_of(run.stderr, architecture)


def check_registers(arguments: argparse.Namespace) -> bool:
    """Print the table; False if anything spills."""
    if shutil.which("nvcc") is None:
        print("nvcc is not on PATH: registers and spills of the CUDA kernels were NOT checked")
        return True
    everything = [*sorted(CUDA.glob("*.cu")), ROOT / "csrc" / "torch_cuda.cpp"]
    sources = [source for source in everything if arguments.only in source.name]
    jobs = [(source, architecture) for source in sources for architecture in arguments.arch]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        results = pool.map(lambda job: compile_source(*job, Path(folder)), jobs)
        usages = [usage for result in results for usage in result]
    table: dict[str, dict[int, Usage]] = {}
    for usage in usages:
        table.setdefault(usage.kernel, {})[usage.architecture] = usage
    rows = [["kernel", *(f"sm_{each}" for each in arguments.arch for _ in range(4))]]
    rows += [["", *["regs", "smem", "stack", "spills"] * len(arguments.arch)]]
    for kernel, by_architecture in sorted(table.items()):
        found = (by_architecture[each] for each in arguments.arch)
        rows.append([kernel, *(str(x) for u in found for x in (u.registers, u.shared, u.stack, u.spills))])
    print(aligned(rows))
    spilled = [usage for usage in usages if usage.spills]
    print(f"{len(usages)} kernels, {len(spilled)} with spills (shared memory beyond smem is set at launch)")
    return bool(usages) and not spilled


def build_emulation(folder: Path, *flags: str) -> Path:
    """Compile the host program that emulates the kernels; returns its path."""
    target = folder / "cuda_attention"
    sources = [str(path) for path in sorted(TESTS.glob("*.cpp")) if path.name.startswith(("gpu_", "cuda_"))]
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, *HOST_FLAGS, *flags, *sources, "-o", str(target)], check=True)
    return target


def check_emulation() -> bool:
    """Run the emulated kernels against float64, plain in full and under sanitizers in part."""
    for title, flags, options in (
        ("emulated kernels", ("-O1",), ()),
        ("emulated kernels, address and undefined-behaviour sanitizers", SANITIZE, ("--quick",)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            program = build_emulation(Path(folder), *flags)
            print(f"== {title}", flush=True)
            if subprocess.run([str(program), *options], check=False).returncode:
                return False
    return True


def main() -> int:
    """1 if a kernel spills or an emulated one is wrong."""
    arguments = parse_arguments()
    right = arguments.skip_nvcc or check_registers(arguments)
    if not arguments.skip_emulation:
        right = check_emulation() and right
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
