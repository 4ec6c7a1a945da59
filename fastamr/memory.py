"""What the C library does with memory that a process has freed, and how much memory there is to be had."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

# Options of glibc's mallopt, and the largest values it takes for them.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**31 - 1
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20
# What a container may use, by the second and the first version of control groups.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_memory() -> int | None:
    """Return how many bytes of the host's memory a process can still have; None where the system does not say.

    That is what Linux calls available, and at most what the container may use.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for path in _LIMITS if found else ():
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        found += [int(text)] if text.isdecimal() else []
    return min(found, default=None)


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
