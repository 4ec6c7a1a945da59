"""The plain variables of a ``.mat`` file of version 4 to 7, parsed with every size checked.

SciPy's parser trusts the sizes that a file tells and can crash the process; here a damaged file is an error. Cells,
structures, objects, sparse and complex arrays are named and not read.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..common.sources import HARMLESS_BYTES, MAX_RATIO

_KINDS = (
    "", "cell", "struct", "object", "char", "sparse", "double", "single", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "uint64", "function", "opaque",
)  # fmt: skip
_CHAR, _FIRST_NUMBER, _LAST_NUMBER, _OPAQUE = 4, 6, 15, 17
_LOGICAL, _COMPLEX = 0x0200, 0x0800
_MATRIX, _COMPRESSED = 14, 15
_STORED = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_TEXT = {16: "utf-8", 17: "utf-16", 18: "utf-32", 4: "utf-16", 1: "latin-1", 2: "latin-1", 6: "utf-32"}
# By the digits of the number that begins a variable of version 4.
_STORED_4 = ("f8", "f4", "i4", "i2", "u2", "u1")
_NOTHING = 0, memoryview(b"")
_HEAD = 128
_HEAD_4 = 20


class NewerVersionError(ValueError):
    """A file of version 7.3, which is HDF5."""


@dataclass(frozen=True)
class Variable:
    """A variable of a file.

    Args:
        name: its name.
        kind: its class in MATLAB's words.
        values: numbers in the type in which they are stored, logical ones as uint8; texts, one a row; None = neither.
    """

    name: str
    kind: str
    values: np.ndarray | None


def variables(content: bytes) -> Iterator[Variable]:
    """Yield the variables of a file.

    Raises:
        NewerVersionError: a file of version 7.3.
        ValueError: the file is damaged, or no ``.mat`` file.
    """
    if b"\x89HDF" in (content[:4], content[512:516]) or content[124:128] in (b"\0\2IM", b"\2\0MI"):
        raise NewerVersionError("version 7.3")
    if len(content) >= _HEAD_4 and 0 in content[:4]:
        yield from _version_4(content)
        return
    mark = content[_HEAD - 2 : _HEAD]
    if mark not in (b"IM", b"MI"):
        raise ValueError("it does not begin as a file of MATLAB")
    order = "<" if mark == b"IM" else ">"
    for kind, part in _elements(content[_HEAD:], order):
        if kind == _COMPRESSED:
            kind, part = next(_elements(_unpacked(part, order), order), _NOTHING)
        if kind == _MATRIX and part:
            found = _matrix(part, order)
            # A variable without a name holds what objects share.
            if found.name:
                yield found


def _elements(content: bytes | memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of the elements that follow one another."""
    view, place = memoryview(content), 0
    while place + 8 <= len(view):
        kind, size = struct.unpack_from(order + "II", view, place)
        start, small = place + 8, kind >> 16
        if small:
            # Up to four bytes stand in the tag itself.
            kind, size, start = kind & 0xFFFF, small, place + 4
        if size > len(view) - start or (small and size > 4):
            raise ValueError("it ends in the middle of a variable")
        yield kind, view[start : start + size]
        end = start + size
        place = place + 8 if small else end if kind == _COMPRESSED else end + -end % 8
    if place < len(view):
        raise ValueError("it ends in the middle of a variable")


def _unpacked(part: memoryview, order: str) -> bytes:
    """Return a compressed element, no longer than its tag says."""
    try:
        stream = zlib.decompressobj()
        tag = stream.decompress(part, 8)
        if len(tag) < 8:
            raise ValueError("a compressed variable is empty")
        size = struct.unpack(order + "II", tag)[1]
        if size > max(HARMLESS_BYTES, MAX_RATIO * len(part)):
            raise ValueError(
                f"a compressed variable of {len(part)} bytes unpacks to {size}, more than {MAX_RATIO} to 1"
            )
        return tag + stream.decompress(stream.unconsumed_tail, size) if size else tag
    except zlib.error as error:
        raise ValueError(f"a compressed variable is damaged ({error})") from None


def _matrix(part: memoryview, order: str) -> Variable:
    elements = _elements(part, order)
    flags, code = next(elements, _NOTHING)[1], 0
    if len(flags) >= 4:
        code = struct.unpack_from(order + "I", flags)[0]
    number = code & 0xFF
    if not 0 < number < len(_KINDS):
        raise ValueError(f"a variable is of no known class ({number})")
    shape: list[int] = [] if number == _OPAQUE else _numbers(*next(elements, _NOTHING), order).tolist()
    name = bytes(next(elements, _NOTHING)[1]).decode("latin-1")
    kind = "logical" if code & _LOGICAL and number == 9 else _KINDS[number]
    if code & _COMPLEX:
        return Variable(name, f"complex {kind}", None)
    if number != _CHAR and not _FIRST_NUMBER <= number <= _LAST_NUMBER:
        return Variable(name, kind, None)
    stored, content = next(elements, (9, _NOTHING[1]))
    if number == _CHAR:
        return Variable(name, kind, _texts(stored, content, shape, order))
    return Variable(name, kind, _shaped(_numbers(stored, content, order), shape, name))


def _numbers(stored: int, content: memoryview, order: str) -> np.ndarray:
    if stored not in _STORED:
        raise ValueError(f"a variable is stored in no known type ({stored})")
    dtype = np.dtype(order + _STORED[stored])
    if len(content) % dtype.itemsize:
        raise ValueError(f"{len(content)} bytes are no whole numbers of type {dtype}")
    return np.frombuffer(content, dtype=dtype).astype(dtype.newbyteorder("="))


def _shaped(values: np.ndarray, shape: list[int], name: str) -> np.ndarray:
    if any(size < 0 for size in shape) or math.prod(shape) != len(values) or not 1 < len(shape) <= 32:
        raise ValueError(f"variable {name!r} says that it has shape {tuple(shape)}, but {len(values)} values")
    return values.reshape(shape, order="F")


def _texts(stored: int, content: memoryview, shape: list[int], order: str) -> np.ndarray:
    """Return the rows of an array of characters."""
    coding = _TEXT.get(stored, "latin-1")
    if coding in ("utf-16", "utf-32"):
        coding += "-le" if order == "<" else "-be"
    letters = np.array(list(bytes(content).decode(coding, "replace")), dtype="U1")
    table = _shaped(letters, shape, "").reshape(-1, shape[-1]) if letters.size else np.empty((0, 0), "U1")
    return np.array(["".join(row) for row in table], dtype=str)


def _version_4(content: bytes) -> Iterator[Variable]:
    view, place = memoryview(content), 0
    order = "<" if struct.unpack_from("<I", view)[0] < 5000 else ">"
    while place < len(view):
        if len(view) - place < _HEAD_4:
            raise ValueError("it ends in the middle of a variable")
        code, rows, columns, is_complex, size = struct.unpack_from(order + "5i", view, place)
        stored, kind = code // 10 % 10, code % 10
        if not 0 <= code < 5000 or stored >= len(_STORED_4) or kind > 2 or min(rows, columns, size - 1) < 0:
            raise ValueError("it does not begin as a file of MATLAB")
        start = place + _HEAD_4 + size
        name = bytes(view[place + _HEAD_4 : start]).split(b"\0")[0].decode("latin-1")
        dtype = np.dtype(order + _STORED_4[stored])
        place = start + rows * columns * dtype.itemsize * (2 if is_complex else 1)
        if place > len(view):
            raise ValueError("it ends in the middle of a variable")
        if is_complex or kind == 2:
            yield Variable(name, "sparse" if kind == 2 else "complex double", None)
            continue
        values = np.frombuffer(view[start:place], dtype=dtype).astype(dtype.newbyteorder("="))
        table = values.reshape((rows, columns), order="F")
        if kind == 1:
            table = np.array(["".join(map(chr, row)) for row in table.astype(np.uint8).tolist()], dtype=str)
        yield Variable(name, "char" if kind == 1 else "double", table)
