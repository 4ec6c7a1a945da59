"""Memory of the process: what the C library does with what was freed, how much is left, and errors for want of it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .host import control_groups

# Options of glibc's mallopt, and the largest values it takes for them.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**31 - 1
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20
# What PyTorch, CUDA and C++ say, in small letters, where an allocation fails.
_SIGNS = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "alloc_failed")
# The files of a control group's version, and the line of memory.stat that tells what the system can take back.
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class OutOfMemory(MemoryError):
    """An allocation failed; the message says in one line what was lost and what to do."""


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory is used up, the host's or a GPU's."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        return any(sign in str(error).lower() for sign in _SIGNS)
    return isinstance(error, MemoryError)


def what_failed(error: BaseException) -> str:
    """Return the sentence of such an error that says what could not be had."""
    sentences = " ".join(str(error).split()).split(". ")
    told = [one for one in sentences if any(sign in one.lower() for sign in _SIGNS)]
    return (told or sentences)[0][:200] or type(error).__name__


def free_memory(device: Any, root: Path = Path("/")) -> int | None:
    """Return the bytes that a device can still give this process, None where the system does not tell.

    Of the host's memory that is the least of what the system has, what the control groups of the process allow (a
    container's limit) and what its own limit of address space leaves (``ulimit -v``).

    Args:
        device: a torch device.
        root: above ``proc`` and ``sys``.
    """
    if device.type == "cuda":
        import torch

        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    found = [*_of_system(root), *_of_groups(root), *_of_limit(root)]
    return max(0, min(found)) if found else None


def _of_system(root: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group above the process leaves, of version 2 and of the memory controller of version 1."""
    for folder in control_groups.folders("memory", root):
        yield from _of_group(folder)


def _of_group(folder: Path) -> Iterator[int]:
    for most, used, idle in _GROUP_FILES:
        with contextlib.suppress(OSError, ValueError, IndexError):
            limit = (folder / most).read_text(encoding="utf-8").strip()
            if limit == "max":
                continue
            left = int(limit) - int((folder / used).read_text(encoding="utf-8"))
            counts = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
            yield left + sum(int(line.split()[1]) for line in counts if line.split()[0] == idle)


def _of_limit(root: Path) -> Iterator[int]:
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        resource = importlib.import_module("resource")  # Windows has none
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int((root / "proc/self/statm").read_text(encoding="utf-8").split()[0])
            yield limit - pages * resource.getpagesize()


@functools.lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next allocation instead of returning it to the system.

    A training step on a CPU allocates the same activations and gradients in every update. By default glibc returns them
    to the system in between, which then clears the same pages again in every update. The change
    holds for the whole process, whose memory stays at its peak; ``fastamr``'s commands and
    :func:`fastamr.training.pretrain` make it. ``FASTAMR_KEEP_MEMORY=0`` leaves the C library as it is.

    Returns:
        Whether it was done: False where the environment forbids it, and on systems without glibc.
    """
    if os.environ.get("FASTAMR_KEEP_MEMORY", "1") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _TRIM_BYTES) and mallopt(_MMAP_THRESHOLD, _MMAP_BYTES))
