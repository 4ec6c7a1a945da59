#!/usr/bin/env python
"""Check the CPU kernels without Python or torch around them, under sanitizers.

Each instruction set's kernels (attention, row passes, AdamW) and the products on the matrix unit are compared with
float64 (tests/csrc/cpu_*.cpp), the exponential with the C library's; all is compiled with the library's own flags,
AddressSanitizer and UndefinedBehaviorSanitizer. The products run twice: on the processor's matrix unit if it has one,
whose reads and writes no sanitizer sees, and with the unit emulated in plain C++ if it has AVX-512.

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

from fastamr.host import allowed_cpus  # noqa: E402
from fastamr.native import build  # noqa: E402

TESTS = ROOT / "tests" / "csrc"
SANITIZE = (
    *("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
)


def run(command: list[str]) -> None:
    """Run a command; a failure ends the program with its status."""
    status = subprocess.run(command, check=False).returncode
    if status:
        print(f"failed: {' '.join(command)}", file=sys.stderr)
        raise SystemExit(status)


PROGRAMS = ("cpu_attention.cpp", "cpu_rows.cpp", "cpu_adamw.cpp", "cpu_products.cpp")
TILES = "tile_products.cpp"


def compile_all(
    folder: Path, compilations: list[tuple[Path, tuple[str, ...]]], extra: tuple[str, ...]
) -> list[str]:
    """Compile in parallel; the object files in the given order."""
    objects = [str(folder / f"{index}.o") for index in range(len(compilations))]
    commands = [
        [*build.filled(command, source=str(source), object=target), *extra]
        for (source, command), target in zip(compilations, objects, strict=True)
    ]
    with ThreadPoolExecutor(allowed_cpus()) as pool:
        list(pool.map(run, commands))
    return objects


def build_programs(folder: Path, extra: tuple[str, ...]) -> list[list[str]]:
    """Commands of the test programs, each linked with the kernels by the library's own plan, adapters left out.

    The last one is linked with the emulated matrix unit in the real one's place.
    """
    plan = build.cpu_plan(build.find_torch())
    kernels = [(source, command) for source, command in plan.compilations if source.parent.name == "cpu"]
    compiler = kernels[0][1][0]
    test = (compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-c", "{source}", "-o", "{object}")
    tests = [(TESTS / program, test) for program in PROGRAMS]
    emulated = [
        (source, (*command, "-DFASTAMR_EMULATE_TILES")) for source, command in kernels if source.name == TILES
    ]
    objects = compile_all(folder, [*kernels, *tests, *emulated], extra)
    shared, mains = objects[: len(kernels)], objects[len(kernels) : len(kernels) + len(tests)]

    def link(name: str, linked: list[str]) -> str:
        run([compiler, *extra, *linked, "-pthread", "-o", str(folder / name)])
        return str(folder / name)

    commands = [
        [link(Path(program).stem, [*shared, main])] for program, main in zip(PROGRAMS, mains, strict=True)
    ]
    commands[-1].append("unit")
    if emulated:
        others = [each for each, (source, _) in zip(shared, kernels, strict=True) if source.name != TILES]
        commands.append([link("cpu_products_emulated", [*others, mains[-1], objects[-1]]), "emulated"])
    return commands


def check_exponential(folder: Path, extra: tuple[str, ...]) -> None:
    """The exponential, once for each instruction set that this processor has."""
    compiler = build.cpu_plan(build.find_torch()).tools[0]
    present = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    for name, flags in build.INSTRUCTION_SETS.items():
        if all(flag.removeprefix("-m") in present for flag in flags):
            program = folder / f"exponential_{name}"
            source = TESTS / "cpu_exponential.cpp"
            options = ["-std=c++17", *build.KERNEL_FLAGS, *flags, *extra]
            run([compiler, *options, str(source), "-o", str(program)])
            run([str(program)])


def main() -> int:
    """0 if everything agrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--plain", action="store_true", help="without sanitizers")
    extra = () if parser.parse_args().plain else SANITIZE
    with tempfile.TemporaryDirectory() as name:
        check_exponential(Path(name), extra)
        for command in build_programs(Path(name), extra):
            run(command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
