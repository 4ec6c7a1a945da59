"""How the compiled extension is built: sources, compilers and flags, the same for a wheel and for a first use.

The file needs neither torch nor the package to be imported, because ``setup.py`` loads it by its path.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEVICES = ("cpu", "cuda")
CHOICES = ("auto", "none", "cpu", "cuda")

# LibTorch's stable ABI as of 2.11: one library serves that torch and every later one.
_TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"
# Never -ffast-math: a library linked with it flushes denormals in the whole process that loads it. Never
# -fassociative-math either: the exponential relies on the order of its additions.
_CPP_FLAGS = ("-std=c++17", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
KERNEL_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
# Adapters check arguments and add up partial sums: what -O3 would do beyond that takes a third of their build.
_ADAPTER_FLAGS = ("-O1", "-ftree-vectorize")
# Written in vectors throughout: what GCC would make vectors of besides are the ends of rows, which no vector fits.
_NO_MORE_VECTORS = "-fno-tree-vectorize"
# Instruction sets that the CPU kernel is compiled for, besides the processor family's common ones.
INSTRUCTION_SETS = {
    "baseline": (),
    "avx2": ("-mavx2", "-mfma"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
}
# What a library may be built up to: the sets above, each with those before it, and the matrix unit of bfloat16 (AMX).
LEVELS = (*INSTRUCTION_SETS, "matrix unit")
_MATRIX_UNIT = ("amx_tile", "amx_bf16", "avx512_bf16")
# Files of csrc/cpu that are compiled once for each of them: the prefix of the tables that they define, further options.
CPU_KERNELS = {
    "visible_attention.cpp": ("fastamr_kernels", ()),
    "row_passes.cpp": ("fastamr_row_kernels", (_NO_MORE_VECTORS,)),
    "adamw_update.cpp": ("fastamr_adamw_kernels", ()),
}
_NVCC_FLAGS = (
    "-std=c++17",
    "-O3",
    "-DNDEBUG",
    "--expt-relaxed-constexpr",
    "-Xcompiler",
    "-fPIC,-fvisibility=hidden",
)
# Real code for these compute capabilities, whatever GPU happens to be present, and PTX for later ones.
CUDA_ARCHITECTURES = ("80", "89", "90", "100")


class BuildError(RuntimeError):
    """A library could not be built: the message says why in one line, ``log`` holds what a compiler printed."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Torch:
    """What a build needs to know about the installed torch, without importing it."""

    folder: Path
    version: str
    cuda: str | None

    @property
    def includes(self) -> tuple[str, ...]:
        """Compiler options for torch's headers."""
        return ("-isystem", str(self.folder / "include"))

    def link(self, *names: str) -> tuple[str, ...]:
        """Linker options for torch's libraries of these names, as far as this torch has them."""
        present = [name for name in names if (self.folder / "lib" / f"lib{name}.so").is_file()]
        return ("-L", str(self.folder / "lib"), *(f"-l{name}" for name in present))


@dataclass(frozen=True)
class Plan:
    """Commands that build one library: compilations ``(source, command)``, then the link.

    Commands hold ``{object}``, ``{objects}`` and ``{library}`` where files are named.
    """

    device: str
    compilations: tuple[tuple[Path, tuple[str, ...]], ...]
    link: tuple[str, ...]
    tools: tuple[str, ...]


def sources_folder() -> Path:
    """The folder ``csrc``: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "csrc", package.parent / "csrc"):
        if (folder / "visible_attention.h").is_file():
            return folder
    raise BuildError(f"the folder csrc is neither in {package} nor beside it: install fastamr again")


def find_torch() -> Torch:
    """Locate torch and read its version file."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise BuildError(
            "torch is not importable here (pip's build isolation hides it: --no-build-isolation)"
        )
    folder = Path(found.origin).parent
    facts: dict[str, Any] = runpy.run_path(str(folder / "version.py"))
    return Torch(folder, facts["__version__"], facts.get("cuda"))


def _tool(variable: str, default: str) -> str:
    """Path of a compiler, named by an environment variable or found on the path."""
    name = os.environ.get(variable) or default
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"no compiler {name!r} on the path: install it or set {variable}")
    return path


def level_of(processor: str) -> str:
    """The highest of :data:`LEVELS` that a processor has; the last where its text does not tell.

    Args:
        processor: the text of ``/proc/cpuinfo``.
    """
    told = [
        set(line.partition(":")[2].split()) for line in processor.splitlines() if line.startswith("flags")
    ]
    if not told:
        return LEVELS[-1]
    present, level = set.intersection(*told), "baseline"
    wanted = [[flag.removeprefix("-m") for flag in flags] for flags in INSTRUCTION_SETS.values()]
    for name, flags in zip(LEVELS, [*wanted, _MATRIX_UNIT], strict=True):
        if not present.issuperset(flags):
            break
        level = name
    return level


def cpu_plan(torch: Torch, level: str = LEVELS[-1]) -> Plan:
    """The CPU library: the kernel once for each instruction set up to a level, and the adapter to torch."""
    compiler, folder = _tool("CXX", "g++"), sources_folder()
    output = ("-c", "{source}", "-o", "{object}")
    kernel, adapter = (compiler, *_CPP_FLAGS, *KERNEL_FLAGS), (compiler, *_CPP_FLAGS, *_ADAPTER_FLAGS)
    most = LEVELS.index(level) if platform.machine() in ("x86_64", "AMD64") else 0
    sets = dict(list(INSTRUCTION_SETS.items())[: most + 1])
    compilations = []  # what takes longest comes first, so that the last compilers end at about the same time
    if most == LEVELS.index("matrix unit"):
        flags = (*INSTRUCTION_SETS["avx512"], _NO_MORE_VECTORS)
        compilations.append((folder / "cpu" / "tile_products.cpp", (*kernel, *flags, *output)))
    for source, (table, further) in CPU_KERNELS.items():
        for name, flags in reversed(sets.items()):
            define = f"-D{table.upper()}={table.removeprefix('fastamr_')}_{name}"
            named = (define, f'-DFASTAMR_KERNELS_NAME="{name}"')
            compilations.append((folder / "cpu" / source, (*kernel, *flags, *further, *named, *output)))
    of_torch = (*adapter, _TORCH_TARGET, *torch.includes, *output)
    names = ("", "_products", "_rows", "_adamw", "_mapping")
    compilations += [(folder / f"torch_cpu{name}.cpp", of_torch) for name in names]
    best = (*adapter, f"-DFASTAMR_LEVEL={most}", *output)
    compilations.append((folder / "cpu" / "best_kernels.cpp", best))
    link = (compiler, "-shared", "-o", "{library}", "{objects}", *torch.link("torch_cpu"))
    return Plan("cpu", tuple(compilations), link, (compiler,))


def architectures_of(capabilities: Sequence[str]) -> tuple[str, ...]:
    """Those of :data:`CUDA_ARCHITECTURES` that GPUs run; all where one runs none of them, or there is no GPU.

    Args:
        capabilities: compute capabilities without the point, ``"90"``.
    """
    found = set()
    for capability in capabilities:
        # A GPU runs code of its own generation up to its own number.
        fits = [each for each in CUDA_ARCHITECTURES if each[:-1] == capability[:-1] and each <= capability]
        if not fits:
            return CUDA_ARCHITECTURES
        found.add(fits[-1])
    return tuple(each for each in CUDA_ARCHITECTURES if each in found) or CUDA_ARCHITECTURES


def cuda_code_flags(architectures: Sequence[str] = CUDA_ARCHITECTURES) -> tuple[str, ...]:
    """Options that make nvcc emit code for these architectures, with all of them also PTX for later ones."""
    flags = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in architectures]
    if tuple(architectures) == CUDA_ARCHITECTURES:
        newest = CUDA_ARCHITECTURES[-1]
        flags.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    return tuple(flags)


def nvcc_flags(torch: Torch) -> tuple[str, ...]:
    """Options of every compilation by nvcc, architectures left out."""
    return (*_NVCC_FLAGS, _TORCH_TARGET, "-DUSE_CUDA", *torch.includes)


def _nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    beside = Path(home) / "bin" / "nvcc" if home else None
    if beside is not None and beside.is_file():
        return str(beside)
    return _tool("NVCC", "/usr/local/cuda/bin/nvcc" if shutil.which("nvcc") is None else "nvcc")


def cuda_plan(torch: Torch, architectures: Sequence[str] = CUDA_ARCHITECTURES) -> Plan:
    """The CUDA library, by nvcc alone: torch.utils.cpp_extension would look for a GPU."""
    if torch.cuda is None:
        raise BuildError(f"torch {torch.version} is built without CUDA")
    nvcc, folder = _nvcc(), sources_folder()
    major = re.search(r"release (\d+)\.", _version(nvcc))
    if major is None or major.group(1) != torch.cuda.split(".")[0]:
        raise BuildError(
            f"{nvcc} is of CUDA {major.group(1) if major else '?'}, torch of CUDA {torch.cuda}: install the nvcc of "
            f"CUDA {torch.cuda.split('.')[0]} or name it by CUDA_HOME"
        )
    sources = [*sorted((folder / "cuda").glob("*.cu")), folder / "torch_cuda.cpp"]
    code = cuda_code_flags(architectures)
    # -x cu: the adapter is ordinary C++ but includes CUDA's headers, which nvcc knows where to find.
    command = (nvcc, *nvcc_flags(torch), *code, "-x", "cu", "-c", "{source}", "-o", "{object}")
    link = (nvcc, "-shared", "-o", "{library}", "{objects}", *torch.link("torch_cpu", "torch_cuda"))
    return Plan("cuda", tuple((source, command) for source in sources), link, (nvcc,))


def plan_for(device: str, capabilities: Sequence[str] = (), level: str = LEVELS[-1]) -> Plan:
    """The plan of a device's library, or :class:`BuildError`.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        capabilities: of the GPUs that the CUDA library is for; none makes it run on every supported one, as in a wheel.
            Each further architecture costs nvcc as much time again.
        level: what the CPU library is built up to. Each further one costs the compiler as much time again.
    """
    if sys.platform != "linux":
        raise BuildError(f"it is built on Linux only (this is {sys.platform}): the other back ends run")
    torch = find_torch()
    return cpu_plan(torch, level) if device == "cpu" else cuda_plan(torch, architectures_of(capabilities))


def _version(tool: str) -> str:
    """What ``tool --version`` prints: part of a library's identity."""
    run = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    return run.stdout or run.stderr


def fingerprint(plan: Plan) -> str:
    """Hash of everything that the library depends on: sources, commands, compilers, torch's version, processor."""
    digest = hashlib.sha256()
    torch, folder = find_torch(), sources_folder()
    digest.update(repr([*torch.version.split(".")[:2], platform.machine()]).encode())
    for path in [*sorted((folder / plan.device).glob("*")), *sorted(folder.glob("*.h"))]:
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    for source, command in plan.compilations:
        digest.update(repr((str(source.relative_to(folder)), command)).encode() + source.read_bytes())
    digest.update(repr((plan.link, [_version(tool) for tool in plan.tools])).encode())
    return digest.hexdigest()[:20]


def sources_fingerprint(device: str) -> str:
    """Hash of a library's sources, torch's version and the processor, whatever compiles them."""
    digest = hashlib.sha256()
    torch, folder = find_torch(), sources_folder()
    digest.update(repr([*torch.version.split(".")[:2], platform.machine()]).encode())
    paths = [
        *sorted((folder / device).glob("*")),
        *sorted(folder.glob("*.h")),
        *sorted(folder.glob(f"torch_{device}*")),
    ]
    for path in paths:
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:20]


def filled(command: tuple[str, ...], **names: str | list[str]) -> Iterator[str]:
    """The command with its placeholders replaced by file names."""
    for word in command:
        value = names.get(word[1:-1]) if word.startswith("{") and word.endswith("}") else None
        if isinstance(value, list):
            yield from value
        else:
            yield word if value is None else value


def _run(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        words = f"{run.stdout}{run.stderr}".strip()
        telling = [line.strip() for line in words.splitlines() if "error" in line.lower()]
        summary = telling[0] if telling else f"exit status {run.returncode}"
        raise BuildError(f"{Path(command[0]).name} failed: {summary}", f"{' '.join(command)}\n{words}\n")


def build(
    plan: Plan,
    library: Path,
    jobs: int,
    seal: Callable[[Path], None] | None = None,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Compile in parallel, link, and put the finished file in its place at once.

    Args:
        plan: how.
        library: the place.
        jobs: compilers that run at a time.
        seal: called with the finished file before that.
        done: called after each compilation and after the link.

    Raises:
        BuildError: with the failed command and the compiler's words.
    """
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as name:
        folder = Path(name)
        objects = [str(folder / f"{index}.o") for index in range(len(plan.compilations))]
        commands = [
            list(filled(command, source=str(source), object=target))
            for (source, command), target in zip(plan.compilations, objects, strict=True)
        ]
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for each in as_completed([pool.submit(_run, command) for command in commands]):
                    each.result()
                    done()
            except BuildError:
                pool.shutdown(cancel_futures=True)
                raise
        finished = folder / "library.so"
        _run(list(filled(plan.link, library=str(finished), objects=objects)))
        done()
        if seal is not None:
            seal(finished)
        finished.replace(library)


def library_name(device: str) -> str:
    """File name of a library that ships in a wheel."""
    return f"visible_attention_{device}.so"


def chosen_devices() -> tuple[str, ...]:
    """The devices that the environment variable ``FASTAMR_BUILD`` allows libraries for.

    Raises:
        BuildError: an unknown value.
    """
    choice = os.environ.get("FASTAMR_BUILD", "auto")
    if choice not in CHOICES:
        raise BuildError(f"FASTAMR_BUILD={choice!r} is unknown: expected one of {', '.join(CHOICES)}")
    return {"auto": DEVICES, "none": (), "cpu": ("cpu",), "cuda": DEVICES}[choice]
