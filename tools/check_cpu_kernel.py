#!/usr/bin/env python
"""Check the CPU kernels without Python or torch around them, under sanitizers.

Each instruction set's kernels (attention, row passes, AdamW) are compared with float64 (tests/csrc/cpu_*.cpp),
the exponential with the C library's; all is compiled with the library's own flags, AddressSanitizer and
UndefinedBehaviorSanitizer.

    python tools/check_cpu_kernel.py            under the sanitizers
    python tools/check_cpu_kernel.py --plain    optimised as in the library, without sanitizers
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fastamr.native import build  # noqa: E402

TESTS = ROOT / "tests" / "csrc"
SANITIZE = (
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


def run(command: list[str]) -> None:
    """Run a command; a failure ends the program with its status."""
    status = subprocess.run(command, check=False).returncode
    if status:
        print(f"failed: {' '.join(command)}", file=sys.stderr)
        raise SystemExit(status)


PROGRAMS = ("cpu_attention.cpp", "cpu_rows.cpp", "cpu_adamw.cpp")


def build_programs(folder: Path, extra: tuple[str, ...]) -> list[Path]:
    """The kernels by the library's own plan, adapters left out, linked with each test program."""
    plan = build.cpu_plan(build.find_torch())
    kernels = [(source, command) for source, command in plan.compilations if source.parent.name == "cpu"]
    compiler = kernels[0][1][0]
    test = (compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-c", "{source}", "-o", "{object}")
    compilations = [*kernels, *((TESTS / program, test) for program in PROGRAMS)]
    objects = [str(folder / f"{index}.o") for index in range(len(compilations))]
    commands = [
        [*build.filled(command, source=str(source), object=target), *extra]
        for (source, command), target in zip(compilations, objects, strict=True)
    ]
    with ThreadPoolExecutor() as pool:
        list(pool.map(run, commands))
    programs = []
    for source, target in zip(PROGRAMS, objects[len(kernels) :], strict=True):
        programs.append(folder / Path(source).stem)
        linked = [*objects[: len(kernels)], target, "-pthread", "-o", str(programs[-1])]
        run([compiler, *extra, *linked])
    return programs


def check_exponential(folder: Path, extra: tuple[str, ...]) -> None:
    """The exponential, once for each instruction set that this processor has."""
    compiler = build.cpu_plan(build.find_torch()).tools[0]
    present = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    for name, flags in build.INSTRUCTION_SETS.items():
        if all(flag.removeprefix("-m") in present for flag in flags):
            program = folder / f"exponential_{name}"
            source = TESTS / "cpu_exponential.cpp"
            options = ["-std=c++17", "-O3", *build.KERNEL_FLAGS, *flags, *extra]
            run([compiler, *options, str(source), "-o", str(program)])
            run([str(program)])


def main() -> int:
    """0 if everything agrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plain", action="store_true", help="without sanitizers")
    extra = () if parser.parse_args().plain else SANITIZE
    with tempfile.TemporaryDirectory() as name:
        check_exponential(Path(name), extra)
        for program in build_programs(Path(name), extra):
            run([str(program)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
