"""Reading npz archives: never unpickled, large members in pieces, errors that name the file."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import STRAY, shortened, told
from .reader import Source
from .sources import check_swelling

# A missing array is told in other words.
_DAMAGE = tuple(kind for kind in STRAY if kind is not LookupError)
_BLOCK_BYTES = 1 << 26
_LARGEST_EMPTY = 1 << 16
_MOST_MEMBERS = 10_000


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what NumPy and zipfile raise on a bad archive into one clear error.

    Raises:
        ValueError: the archive is truncated, damaged or holds pickled objects.
    """
    try:
        yield
    except (zipfile.BadZipFile, OSError, RuntimeError, *_DAMAGE) as error:
        raise ValueError(
            f"{path} is no npz archive, or is truncated ({told(error)}); fetch the file again"
        ) from None
    except LookupError as error:
        raise ValueError(f"{path} lacks an array: {error}") from None


def member_names(path: Path) -> set[str]:
    """Return the names of the arrays in an npz archive."""
    with readable(path), _opened(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


def member_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of each array in an npz archive, whose values are not read.

    Raises:
        ValueError: the archive is truncated or damaged.
    """
    with readable(path), _opened(path) as archive:
        found = {}
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    header = _header(path, name, file, archive.getinfo(name).file_size)
                    found[name.removesuffix(".npy")] = header[::2]
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
    with readable(path):
        with _opened(path) as archive, archive.open(f"{name}.npy") as file:
            _header(path, name, file, archive.getinfo(f"{name}.npy").file_size)
        with np.load(path, allow_pickle=False) as archive:
            try:
                return np.asarray(archive[name])
            except ValueError as error:
                raise ValueError(
                    f"{path}, array {name!r}: {told(error)}; save it as a plain numeric array"
                ) from None


def read_blocks(path: Path, name: str) -> Iterator[np.ndarray]:
    """Yield an array of an archive in blocks along its first axis, so that it need not fit into memory.

    Raises:
        ValueError: the archive is damaged, lacks the array, or the array needs unpickling or Fortran order.
    """
    with readable(path), _opened(path) as archive, archive.open(f"{name}.npy") as file:
        shape, fortran, dtype = _header(path, name, file, archive.getinfo(f"{name}.npy").file_size)
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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive that does not swell.

    Raises:
        ValueError: it would, or it has more arrays than a data set has.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        check_swelling(archive, size, path)
        if len(archive.infolist()) > _MOST_MEMBERS:
            raise ValueError(
                f"{path} holds {len(archive.infolist())} arrays, expected at most {_MOST_MEMBERS}"
            )
        yield archive


def _header(path: Path, name: str, file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: shape, whether it is in Fortran order, dtype."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
    except (ValueError, *STRAY) as error:
        raise ValueError(f"{path}, array {name!r} is damaged ({told(error)}); fetch the file again") from None
    check_claim(shape, dtype, size, f"{path}, array {name.removesuffix('.npy')!r}")
    return shape, fortran, dtype


def check_header(path: Path) -> None:
    """Raise ``ValueError`` where the header of a ``.npy`` file is damaged or claims more values than the file holds."""
    with path.open("rb") as file:
        _header(path, path.stem, file, path.stat().st_size)


def check_claim(shape: tuple[int, ...], dtype: np.dtype[Any], size: int, where: str) -> None:
    """Raise before memory is asked for where an array claims more values than its file holds.

    Args:
        shape: what the header says.
        dtype: what the header says; objects claim nothing, for they are never read.
        size: bytes of the file, or of the unpacked member of an archive.
        where: names the array in errors.

    Raises:
        ValueError: it claims more, or its shape has more values than can be counted.
    """
    values = math.prod(shape)
    if (
        len(shape) > 32
        or any(size < 0 for size in shape)
        or (values == 0 and max(shape, default=0) > _LARGEST_EMPTY)
    ):
        raise ValueError(f"{where} has shape {shortened(shape)}, which is none; fetch the file again")
    if values > 0 and dtype.itemsize == 0:
        raise ValueError(f"{where} is of dtype {dtype}, which has no bytes; save it as plain numbers or text")
    if not dtype.hasobject and values * dtype.itemsize > size:
        raise ValueError(
            f"{where} claims {shortened(shape)} of {dtype}, which is more than the file holds; fetch the file again"
        )
