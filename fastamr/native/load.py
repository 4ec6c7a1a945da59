"""Where the compiled extension comes from, once per process: the wheel, the cache of earlier builds, or a build now.

Nothing here raises: a library that is not there leaves its reason, which ``fastamr info`` prints.
"""

from __future__ import annotations

import fcntl
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from . import build

# By device: why its library is not loaded (None if it is), and the file that is. A device that is missing was not
# tried yet.
_reasons: dict[str, str | None] = {}
_loaded: dict[str, Path] = {}


def cache_folder() -> Path:
    """Folder of the libraries built on first use: ``FASTAMR_CACHE``, else ``fastamr`` in the user's cache folder."""
    named = os.environ.get("FASTAMR_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "fastamr"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"fastamr-{os.getuid()}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that parallel processes build once and the others wait for the result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def built_library(device: str) -> Path:
    """Path of the device's library, compiled now unless the cache has it.

    A compiler's failure is kept in the cache too, so that not every process repeats it.

    Raises:
        build.BuildError: it cannot be built.
    """
    plan = build.plan_for(device)
    library = cache_folder() / f"{device}-{build.fingerprint(plan)}.so"
    failure = library.with_suffix(".failed")
    if library.is_file():
        return library
    with _locked(library.with_suffix(".lock")):
        if library.is_file():
            return library
        if failure.is_file():
            summary = failure.read_text(encoding="utf-8").partition("\n")[0]
            raise build.BuildError(f"{summary} (its whole output: {failure}; delete that file to try again)")
        print(f"fastamr: compiling its {device} extension into {library.parent}, once", file=sys.stderr)
        try:
            build.build(plan, library)
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
        library = _library(device)
        torch.ops.load_library(str(library))
        _loaded[device] = library
    except (build.BuildError, OSError, RuntimeError) as error:
        return f"the {device} extension is missing: {error}"
    return None


def why_not(device: str) -> str | None:
    """Load the library of ``"cpu"`` or ``"cuda"`` on the first call; None if it is there, else the reason."""
    if device not in _reasons:
        _reasons[device] = _try(device)
    return _reasons[device]


@functools.lru_cache(maxsize=1)
def has_matrix_unit() -> bool:
    """Whether the CPU extension is there and the processor has a matrix unit for bfloat16 that it may use."""
    return why_not("cpu") is None and bool(torch.ops.fastamr_native.has_matrix_unit())


def status(device: str) -> str:
    """The loaded file, or why there is none."""
    return why_not(device) or str(_loaded[device])


# What torch.compiler.assume_constant_result sets; calling it would import all of torch's compiler here. The answer
# does not change within a process, and tracing the search for a library is impossible.
why_not._dynamo_marked_constant = True  # type: ignore[attr-defined]
