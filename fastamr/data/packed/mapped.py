"""A packed file that stays mapped into memory: whether it is still what it was when it was opened.

Memory of a file that is cut short cannot be read: the process gets a bus error, which no exception handler sees. So the
size is looked at before each batch, and what is read between two looks ends with a message where the compiled
extension is there.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import checksums, native

_ATTRIBUTE = "_fastamr_mapped_file"


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
