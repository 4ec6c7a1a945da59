"""Reading npz archives: never unpickled, large members in pieces, errors that name the file."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .reader import Source

_BLOCK_BYTES = 1 << 26
_MOST_PACKED = 1040
"""Deflate makes nothing smaller than by this."""


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what NumPy and zipfile raise on a bad archive into one clear error.

    Raises:
        ValueError: the archive is truncated, damaged or holds pickled objects.
    """
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"{path} is no npz archive, or is truncated ({error}); fetch the file again"
        ) from None
    except KeyError as error:
        raise ValueError(f"{path} lacks an array: {error}") from None


def member_names(path: Path) -> set[str]:
    """Return the names of the arrays in an npz archive."""
    with readable(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


def member_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of each array in an npz archive, whose values are not read.

    Raises:
        ValueError: the archive is truncated or damaged.
    """
    with readable(path), zipfile.ZipFile(path) as archive:
        found = {}
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    found[name.removesuffix(".npy")] = _header(path, name, file)[::2]
        return found


def holds_arrays(*required: str) -> Callable[[Source], bool]:
    """Return a look at whether an archive has some arrays."""

    def sniff(source: Source) -> bool:
        names = source.parsed(member_names)
        source.seen = f"the arrays {', '.join(sorted(names)) or 'none'}"
        return names >= set(required)

    return sniff


def read_member(path: Path, name: str) -> np.ndarray:
    """Return a whole array of an archive.

    Raises:
        ValueError: as :func:`read_blocks`.
    """
    with readable(path), np.load(path, allow_pickle=False) as archive:
        _check_size(path, name)
        try:
            return np.asarray(archive[name])
        except ValueError as error:
            raise ValueError(f"{path}, array {name!r}: {error}; save it as a plain numeric array") from None


def _check_size(path: Path, name: str) -> None:
    """Raise where an array says that it is larger than its file can hold: NumPy makes room for it before it reads."""
    with zipfile.ZipFile(path) as archive:
        held = archive.getinfo(f"{name}.npy").file_size
        with archive.open(f"{name}.npy") as file:
            shape, _, dtype = _header(path, name, file)
    size = dtype.itemsize * math.prod(shape)
    if not dtype.hasobject and size > min(held, _MOST_PACKED * path.stat().st_size):
        raise ValueError(
            f"{path}, array {name!r}: {shape} of {dtype} is more than the file holds; fetch it again"
        )


def read_blocks(path: Path, name: str) -> Iterator[np.ndarray]:
    """Yield an array of an archive in blocks along its first axis, so that it need not fit into memory.

    Raises:
        ValueError: the archive is damaged, lacks the array, or the array needs unpickling or Fortran order.
    """
    with readable(path), zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        shape, fortran, dtype = _header(path, name, file)
        if dtype.hasobject or fortran or not shape:
            raise ValueError(
                f"{path}, array {name!r}: expected plain numbers in C order, got {dtype} {shape}"
            )
        row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
        rows = max(1, _BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            content = file.read(count * row_bytes)
            if len(content) < count * row_bytes:
                raise EOFError(f"array {name!r} ends early")
            yield np.frombuffer(content, dtype=dtype).reshape(count, *shape[1:])


def _header(path: Path, name: str, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: shape, whether it is in Fortran order, dtype."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        return read(file)
    except ValueError as error:
        raise ValueError(f"{path}, array {name!r} is damaged ({error}); fetch the file again") from None
