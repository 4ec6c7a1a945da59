"""A packed file that stays mapped into memory: whether it is still what it was when it was opened.

Memory of a file that is cut short cannot be read: the process gets a bus error, which no exception handler sees. So the
size is looked at before each batch, and what is read between two looks ends with a message where the compiled
extension is there.

Frames of several files that train together need not be copied into one tensor: :func:`join` stands for them.
"""

from __future__ import annotations

import bisect
import ctypes
import functools
import itertools
import mmap
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import checksums, native

_ATTRIBUTE = "_fastamr_mapped_file"
_PARTS = "_fastamr_parts"
_WILL_NEED = 3  # of madvise(2)


class MappedFile:
    """A file behind tensors, held open so that its size and time are known even if its name goes to another file.

    Args:
        path: the file.
        names: its tensors that are mapped, others were copied.
    """

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self.path, self.names = path, names
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        self._size, self._time = self._now()

    @property
    def size(self) -> int:
        """Its bytes when it was opened."""
        return self._size

    def _now(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def __deepcopy__(self, memo: Any) -> MappedFile:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_nothing, ())  # a copy by pickle has its tensors in memory

    def check(self) -> None:
        """Raise where the file was cut short since it was opened; takes about a microsecond.

        Raises:
            OSError: it was.
        """
        size = self._now()[0]
        if size < self._size:
            raise OSError(
                f"{self.path} was cut from {self._size} to {size} bytes while it was in use: put it back as it was; "
                "training goes on from its last checkpoint with --resume auto"
            )

    def changed(self) -> bool:
        """Tell, once for each change, whether the file was written to since it was opened.

        Raises:
            OSError: it was cut short.
        """
        self.check()
        before, self._time = self._time, self._now()[1]
        return before != self._time

    def verify(self) -> bool:
        """Compare the mapped tensors with their checksums, by reading the file.

        Returns:
            Whether it has checksums; files of earlier versions have none.

        Raises:
            ValueError: it is damaged; the message names the tensor.
        """
        return checksums.verify_file(self._file, self.path, self.names)


def _nothing() -> None:
    return None


def attach(tensor: Tensor, file: MappedFile) -> None:
    """Note the file behind a tensor, for as long as the tensor lives."""
    setattr(tensor, _ATTRIBUTE, file)
    native.watch_mapping(tensor, file.path, file.size)


def mapped_file(tensor: Tensor | None) -> MappedFile | None:
    """Return the file behind a tensor, None where it lies in memory."""
    found: MappedFile | None = getattr(tensor, _ATTRIBUTE, None)
    return found


def join(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return a tensor of shape and type alone that stands for tensors one after another, which stay where they are.

    Who reads its values reads :func:`parts_of` instead; anything else fails, because it has none (device ``meta``).

    Args:
        parts: ``(F_i, ...)`` on the CPU.
        dtype: as which the values count.

    Returns:
        ``(sum of F_i, ...)``.
    """
    whole = torch.empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=dtype, device="meta")
    setattr(whole, _PARTS, tuple(parts))
    return whole


def parts_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return what :func:`join` joined, or the tensor itself."""
    found: tuple[Tensor, ...] = getattr(tensor, _PARTS, (tensor,))
    return found


def mapped_files(tensor: Tensor) -> list[MappedFile]:
    """Return the files behind a tensor or behind its parts; none for what lies in memory."""
    return [file for part in parts_of(tensor) if (file := mapped_file(part)) is not None]


class Rows:
    """Rows of a tensor, or of one that :func:`join` made, without a copy.

    Args:
        tensor: ``(F, ...)``.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._parts = parts_of(tensor)
        self._mapped = [mapped_file(part) is not None for part in self._parts]
        self._ends = list(itertools.accumulate(map(len, self._parts)))

    def __call__(self, start: int, count: int) -> Tensor:
        """Return ``count`` rows from ``start`` on, which lie in one part."""
        place = bisect.bisect_right(self._ends, start)
        first = start - (self._ends[place] - len(self._parts[place]))
        return self._parts[place][first : first + count]

    def read_ahead(self, start: int, count: int) -> None:
        """Have the system read rows of a mapped file into its cache; does not wait for it. Linux only."""
        advise = _madvise()
        if advise is not None and self._mapped[bisect.bisect_right(self._ends, start)]:
            rows = self(start, count)
            page = rows.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
            advise(page, rows.data_ptr() + rows.nbytes - page, _WILL_NEED)


@functools.lru_cache(maxsize=1)
def _madvise() -> Callable[[int, int, int], int] | None:
    try:
        found = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found
