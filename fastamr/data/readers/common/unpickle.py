"""Pickled arrays and plain containers, read without running anything that a file names.

Python's own unpickler calls what a pickle asks for; an allow-list of names still leaves NumPy's constructors, which
trust their arguments. Here the opcodes are interpreted: strings, numbers, lists, tuples, dictionaries and
numeric or text arrays are built by this module, and everything else is refused. Protocols 2 to 5 are read, which is
what ``pickle`` has written by default since Python 3 and what MMEngine and PYSKL write.

Source: the opcode descriptions of the standard library's ``pickletools``, which also splits the file into opcodes and
never executes one.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import STRAY, told

# What a pickle may name, and what this module calls it. NumPy 2 moved its modules.
_NAMES = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy.core.numeric", "_frombuffer"): "frombuffer",
    ("numpy._core.numeric", "_frombuffer"): "frombuffer",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("collections", "OrderedDict"): "mapping",
}
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|[US]\d{1,6}")


class _Name:
    """A callable that the pickle named: a word for this module, nothing that can be called."""

    __slots__ = ("word",)

    def __init__(self, word: str) -> None:
        self.word = word


class _Unset:
    """An array or dtype whose state has not come yet, and the memo entries that must become it."""

    __slots__ = ("dtype", "slots")

    def __init__(self, dtype: np.dtype[Any] | None) -> None:
        self.dtype = dtype
        self.slots: list[int] = []


# What other files begin with, and what to do about them.
_OTHERS = {
    b"PK\x03\x04": "is a zip archive, as torch.save writes it, and no plain pickle; save plain arrays with np.savez",
    b"\x1f\x8b": "is packed with gzip; unpack it first (gzip -d)",
}
_MARK = object()
_LARGEST_KEY, _MOST_LARGE_KEYS = 1 << 63, 100
_FREE_VALUES, _MOST_COPIES = 1_000_000, 4
_PLAIN = (str, bytes, int, float, bool, type(None), np.generic)


class _Refused(ValueError):
    """The pickle asks for something that is not plain data."""


def unpickle(path: str | Path) -> Any:
    """Read a pickle of arrays and plain containers.

    Args:
        path: a file written by ``pickle`` with protocol 2 or later.

    Returns:
        Strings, bytes, numbers, None, lists, tuples, dictionaries (with keys that are one of the former) and
        read-only arrays of booleans, integers, floats and text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or no pickle, or names or holds anything else (which, at which byte).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no pickle file {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; fetch the file again")
    with path.open("rb") as file:
        head = file.read(4)
    for start, what in _OTHERS.items():
        if head.startswith(start):
            raise ValueError(f"{path} {what}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        machine, position = _Machine(len(content)), 0
        try:
            # Reading from the mapping, a claimed length beyond the end allocates nothing.
            for opcode, argument, place in pickletools.genops(content):  # type: ignore[arg-type]
                position = place or 0
                machine.step(opcode.name, argument, position)
        except _Refused as error:
            if "'pandas" in str(error):
                raise ValueError(
                    f"{path} holds a table of pandas, whose pickles are not read; save it with to_csv"
                ) from None
            raise ValueError(
                f"{path}, byte {position}: the pickle {error}; only plain containers and numeric or text arrays are "
                f"read, because a pickle can run any code"
                + "; if it is of protocol 0 or 1, save it again with pickle.dump(..., protocol=4)"
                * machine.is_old
            ) from None
        except (ValueError, *STRAY) as error:
            raise ValueError(
                f"{path} is no pickle, or is damaged or truncated after byte {position} ({told(error)}); fetch the "
                "file again"
            ) from None
    return machine.result


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, size: int) -> None:
        self.result: Any = None
        self.is_old = True
        self._size = size
        self._stack: list[Any] = []
        self._large_keys = 0
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any, position: int) -> None:
        """Carry out one opcode."""
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self._stack.append(argument)
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name == "STOP":
            self._finish()
        elif name == "FRAME":
            if argument > self._size - position:
                raise ValueError(f"a frame of {argument} bytes in a file of {self._size}")
        elif name == "PROTO":
            if not 2 <= argument <= 5:
                raise ValueError(f"protocol {argument}, expected 2 to 5")
            self.is_old = False
        else:
            raise _Refused(f"uses opcode {name}")

    def _finish(self) -> None:
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            raise ValueError("values are left over at the end")
        self.result = self._value(self._stack.pop())
        _check_written_out(self.result, max(_FREE_VALUES, _MOST_COPIES * self._size))

    def _value(self, value: Any) -> Any:
        """Return a value that may stand in a container."""
        if isinstance(value, _Name):
            raise _Refused(f"uses {value.word} as a value")
        if isinstance(value, _Unset):
            raise _Refused("holds an unfinished array")
        return value

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise ValueError("the stack is empty")
        values = self._stack[len(self._stack) - count :]
        if any(value is _MARK for value in values):
            raise ValueError("a mark stands where a value is expected")
        del self._stack[len(self._stack) - count :]
        return values

    def _to_mark(self) -> list[Any]:
        """Take all values above the last mark, and the mark."""
        place = len(self._stack) - 1
        while place >= 0 and self._stack[place] is not _MARK:
            place -= 1
        if place < 0:
            raise ValueError("no mark on the stack")
        values = self._stack[place + 1 :]
        del self._stack[place:]
        return values

    def mark(self, _: Any) -> None:
        """Begin a list of values."""
        self._stack.append(_MARK)

    def bundle(self, count: int | None) -> None:
        """Make a tuple of the last values, or of all since the mark; names may be in it, as arguments."""
        self._stack.append(tuple(self._to_mark() if count is None else self._pop(count)))

    def append(self, many: bool) -> None:
        """Put the last value, or all since the mark, into the list below."""
        values = self._to_mark() if many else self._pop(1)
        target = self._stack[-1]
        if type(target) is not list:
            raise _Refused(f"appends to a {type(target).__name__}")
        target.extend(map(self._value, values))

    def assign(self, many: bool) -> None:
        """Put the last key and value, or all since the mark, into the dictionary below."""
        values = self._to_mark() if many else self._pop(2)
        target = self._stack[-1]
        if type(target) is not dict or len(values) % 2:
            raise _Refused(f"sets items of a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, _PLAIN):
                # Hashing a tuple that holds itself many times over takes for ever.
                raise _Refused(f"has a {type(key).__name__} as a key")
            if isinstance(key, (int, float)) and abs(key) >= _LARGEST_KEY:
                # Numbers of many digits can all have one hash, and a dictionary of many such never ends.
                self._large_keys += 1
                if self._large_keys > _MOST_LARGE_KEYS:
                    raise _Refused(f"has more than {_MOST_LARGE_KEYS} numbers of more than 64 bits as keys")
            target[key] = self._value(value)

    def put(self, key: int | None) -> None:
        """Remember the last value, under the next number or a given one."""
        number = len(self._memo) if key is None else key
        value = self._stack[-1]
        if value is _MARK:
            raise ValueError("a mark is remembered")
        self._memo[number] = value
        if isinstance(value, _Unset):
            value.slots.append(number)

    def get(self, key: int) -> None:
        """Bring a remembered value back."""
        if key not in self._memo:
            raise ValueError(f"value {key} was never remembered")
        self._stack.append(self._memo[key])

    def name(self, pair: str | None) -> None:
        """Look a name up in the allow-list."""
        module, _, attribute = (pair or "").partition(" ")
        if pair is None:
            module, attribute = self._pop(2)
        word = _NAMES.get((module, attribute)) if type(module) is type(attribute) is str else None
        if word is None:
            raise _Refused(f"names {_shown(module)} {_shown(attribute)}")
        self._stack.append(_Name(word))

    def reduce(self, _: Any) -> None:
        """Build what a name and its arguments stand for."""
        name, arguments = self._pop(2)
        if not isinstance(name, _Name) or type(arguments) is not tuple:
            raise _Refused(f"calls a {type(name).__name__}")
        try:
            self._stack.append(_BUILDERS[name.word](*arguments))
        except (KeyError, TypeError) as error:
            raise _Refused(f"calls {name.word} with arguments that do not fit ({told(error)})") from None

    def build(self, _: Any) -> None:
        """Give an array or a dtype its state."""
        unset, state = self._pop(2)
        if not isinstance(unset, _Unset) or type(state) is not tuple:
            raise _Refused(f"sets the state of a {type(unset).__name__}")
        done = _array_from(state) if unset.dtype is None else _ordered_dtype(unset.dtype, state)
        self._stack.append(done)
        for slot in unset.slots:
            self._memo[slot] = done


def _check_written_out(value: Any, most: int) -> None:
    """Raise where containers that hold one another several times have more values than a file of its size may have."""
    sizes: dict[int, int] = {}
    waiting = [(value, False)]
    while waiting:
        item, is_done = waiting.pop()
        kind = type(item)
        if kind not in (list, tuple, dict):
            continue
        inside = [*item.keys(), *item.values()] if kind is dict else item
        if is_done:
            sizes[id(item)] = 1 + sum(sizes.get(id(part), 1) for part in inside)
            if sizes[id(item)] > most:
                raise _Refused("holds lists within lists so often that they would fill the memory")
        elif id(item) not in sizes:
            sizes[id(item)] = most + 1  # what holds itself stays at this
            waiting.append((item, True))
            waiting.extend((part, False) for part in inside)


def _shown(value: Any) -> str:
    """Return a text that stays short whatever the value is: a tuple may hold itself many times over."""
    return repr(value[:60]) if type(value) is str else f"a {type(value).__name__}"


def _array_from(state: tuple[Any, ...]) -> np.ndarray:
    """Build an array from ``(version, shape, dtype, is_fortran, bytes)``."""
    if len(state) != 5:
        raise _Refused(f"has an array with a state of {len(state)} parts")
    _, shape, dtype, fortran, raw = state
    return _frombuffer(raw, dtype, shape, "F" if fortran is True else "C")


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    dtype = _finished(dtype)
    sound = (
        type(shape) is tuple and len(shape) <= 32 and all(type(size) is int and size >= 0 for size in shape)
    )
    if not sound or order not in ("C", "F") or not isinstance(raw, (bytes, bytearray)):
        raise _Refused(f"has an array of a shape or content that is none, from a {type(raw).__name__}")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"an array {dtype} {shape} with {len(raw)} bytes")
    # Text of length 0 has no bytes to tell how many there are.
    if dtype.itemsize == 0:
        raise _Refused(f"has an array of dtype {dtype}")
    return np.frombuffer(raw, dtype=dtype).reshape(shape, order=order)


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Unset:
    if type(code) is not str or not _DTYPE.fullmatch(code):
        raise _Refused(f"has an array of dtype {_shown(code)}")
    return _Unset(np.dtype(code))


def _ordered_dtype(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    """Return the dtype in the byte order of its state ``(version, order, subarray, names, fields, ...)``."""
    if len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
        raise _Refused("has a structured dtype")
    return dtype.newbyteorder(state[1])


def _finished(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, np.dtype):
        raise _Refused(f"has a {type(dtype).__name__} in place of a dtype")
    return dtype


def _scalar(dtype: Any, raw: Any) -> Any:
    return _frombuffer(raw, dtype, (1,))[0]


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Unset:
    if not isinstance(kind, _Name) or kind.word != "ndarray":
        raise _Refused("reconstructs something other than an array")
    return _Unset(None)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Protocol 2 writes bytes as text and names the codec to turn it back."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"encodes as {_shown(encoding)}")
    return text.encode("latin1")


def _mapping() -> dict[Any, Any]:
    return {}


_BUILDERS: dict[str, Callable[..., Any]] = {
    "reconstruct": _reconstruct,
    "dtype": _dtype,
    "scalar": _scalar,
    "frombuffer": _frombuffer,
    "encode": _encode,
    "bytes": lambda: b"",
    "mapping": _mapping,
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.bundle(None),
    "TUPLE1": lambda machine, _: machine.bundle(1),
    "TUPLE2": lambda machine, _: machine.bundle(2),
    "TUPLE3": lambda machine, _: machine.bundle(3),
    "APPEND": lambda machine, _: machine.append(False),
    "APPENDS": lambda machine, _: machine.append(True),
    "SETITEM": lambda machine, _: machine.assign(False),
    "SETITEMS": lambda machine, _: machine.assign(True),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(None),
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": lambda machine, _: machine.name(None),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
