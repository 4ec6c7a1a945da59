"""What the C library does with memory that a process has freed."""

from __future__ import annotations

import ctypes
import functools
import os

# Options of glibc's mallopt, and the largest values it takes for them.
_TRIM_THRESHOLD, _TRIM_BYTES = -1, 2**31 - 1
_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20


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
