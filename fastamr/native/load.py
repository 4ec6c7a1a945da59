"""Where the compiled extension comes from, once per process: the wheel, the cache of earlier builds, or a build now.

Nothing here raises: a library that is not there leaves its reason, which ``fastamr info`` prints.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from ..host import allowed_cpus
from ..progress import Progress, say
from . import build, cache

# By device: why its library is not loaded (None if it is), and the file that is. A device that is missing was not
# tried yet.
_reasons: dict[str, str | None] = {}
_loaded: dict[str, Path] = {}
_may_compile = True


cache_folder = cache.cache_folder


def built_library(device: str) -> Path:
    """Path of the device's library, compiled now unless the cache has it.

    A compiler's failure is kept in the cache for a day, so that not every process repeats it. Without a compiler, what
    an earlier one built of the same sources is taken.

    Raises:
        build.BuildError: it cannot be built.
    """
    sources = build.sources_fingerprint(device)
    try:
        plan = plan_here(device)
    except build.BuildError:
        for folder in cache.readable():
            if (kept := cache.find(folder, device, sources)) is not None:
                return kept
        raise
    name = f"{device}-{build.fingerprint(plan)}.so"
    for folder in cache.readable():
        if cache.is_sound(folder / name):
            return folder / name
    return _build(plan, cache.writable() / name, sources)


def plan_here(device: str) -> build.Plan:
    """How the library is built for what is present: the processor's instruction sets, the GPUs.

    Raises:
        build.BuildError: it cannot be built.
    """
    if device == "cpu":
        return build.plan_for(device, level=build.level_of(_processor()))
    if not torch.cuda.is_available():
        return build.plan_for(device)
    found = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
    return build.plan_for(device, [f"{major}{minor}" for major, minor in found])


def _processor() -> str:
    """What the system tells of the processor; nothing where it does not."""
    with suppress(OSError):
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return ""


def _build(plan: build.Plan, library: Path, sources: str) -> Path:
    failure = library.with_suffix(".failed")
    with cache.locked(library.with_suffix(".lock")):
        if cache.is_sound(library):
            return library
        if (summary := cache.failure(failure)) is not None:
            raise build.BuildError(
                f"{summary} (its whole output: {failure}; try again with: fastamr cache --clear)"
            )
        say(f"fastamr: compiling its {plan.device} extension into {library.parent}, once")
        steps = len(plan.compilations) + 1  # and the link
        try:
            with Progress(steps, "fastamr: compiling", unit="file") as progress:
                seal = functools.partial(cache.seal, library, sources)
                build.build(plan, library, allowed_cpus(), seal, progress.advance)
        except build.BuildError as error:
            failure.write_text(f"{error}\n{error.log}", encoding="utf-8")
            raise build.BuildError(f"{error} (its whole output: {failure})") from error
    return library


def _library(device: str) -> Path:
    shipped = Path(__file__).resolve().parent / build.library_name(device)
    return shipped if shipped.is_file() else built_library(device)


def _try(device: str) -> str | None:
    """Load a device's library; the reason if that fails."""
    try:
        if device not in build.chosen_devices():
            return f"FASTAMR_BUILD={os.environ.get('FASTAMR_BUILD')} leaves the {device} extension out"
        if device == "cuda" and torch.version.cuda is None:
            return f"torch {torch.__version__} is built without CUDA"
        if device == "cuda" and not torch.cuda.is_available():
            return "there is no GPU (torch.cuda.is_available() is false), so the cuda extension is not built"
        library = _library(device)
        torch.ops.load_library(str(library))
        _loaded[device] = library
    except (build.BuildError, OSError, RuntimeError) as error:
        return f"the {device} extension is missing: {error}"
    return None


def why_not(device: str) -> str | None:
    """Load the library of ``"cpu"`` or ``"cuda"`` on the first call; None if it is there, else the reason."""
    if device not in _reasons:
        if not _may_compile and device in build.chosen_devices() and not _is_there(device):
            return "not compiled yet: the first call that needs it does, and fastamr info --build"
        _reasons[device] = _try(device)
    return _reasons[device]


@contextmanager
def without_compiling() -> Iterator[None]:
    """Inside the block a library that would have to be compiled first counts as missing, for the time of the block."""
    global _may_compile
    before, _may_compile = _may_compile, False
    try:
        yield
    finally:
        _may_compile = before


def watch_mapping(tensor: Tensor, path: Path, size: int) -> None:
    """End the process with a line that names the file where one that a tensor maps is cut short while it is read.

    Nothing is compiled for it: without the CPU extension such a process ends with a bus error.

    Args:
        tensor: mapped memory, on the CPU.
        path: its file.
        size: bytes of the file.
    """
    with without_compiling():
        if why_not("cpu") is not None:
            return
    line = (
        f"error: {path} was cut short while it was in use (bus error): put it back as it was; training goes on from "
        "its last checkpoint with --resume auto\n"
    )
    text = os.fsencode(path.resolve()) + b"\0" + os.fsencode(line)
    if len(text) < _LONGEST:
        words = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        torch.ops.fastamr_native.watch_mapping.default(tensor.data_ptr(), tensor.nbytes, size, words)


# What csrc/torch_cpu_mapping.cpp has room for.
_LONGEST = 4096


def _is_there(device: str) -> bool:
    """Whether it can be said without compiling if the library can be had: it is there, or cannot be built."""
    if (Path(__file__).resolve().parent / build.library_name(device)).is_file():
        return True
    if device == "cuda" and not torch.cuda.is_available():
        return True
    try:
        name = f"{device}-{build.fingerprint(plan_here(device))}"
    except (build.BuildError, OSError):
        return True
    return any(
        cache.is_sound(folder / f"{name}.so") or cache.failure(folder / f"{name}.failed") is not None
        for folder in cache.readable()
    )


def has_matrix_unit() -> bool:
    """Whether the CPU extension is there and the processor has a matrix unit for bfloat16 that it may use."""
    return why_not("cpu") is None and _matrix_unit()


@functools.lru_cache(maxsize=1)
def _matrix_unit() -> bool:
    return bool(torch.ops.fastamr_native.has_matrix_unit())


def status(device: str) -> str:
    """The loaded file, or why there is none."""
    return why_not(device) or str(_loaded[device])


# What torch.compiler.assume_constant_result sets; calling it would import all of torch's compiler here. The answer
# does not change within a process, and tracing the search for a library is impossible.
why_not._dynamo_marked_constant = True  # type: ignore[attr-defined]
