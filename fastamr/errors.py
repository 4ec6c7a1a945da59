"""Error messages that name the argument, its value, what is expected and the next step."""

from __future__ import annotations

import contextlib
import difflib
import lzma
import reprlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

STRAY = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError),
    *(NotImplementedError, RecursionError, SyntaxError, SystemError, TypeError),
    *(lzma.LZMAError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What Python and its libraries raise on damaged input, beside ``ValueError`` and ``OSError``."""


class UsageError(Exception):
    """A wrong command, option or value on the command line."""


def unknown_name(what: str, value: object, known: Iterable[str]) -> ValueError:
    """Build the error for a name that is not in a list, with the nearest valid one.

    Args:
        what: the argument's name, for example ``"layout"``.
        value: what the caller passed.
        known: the valid names.

    Returns:
        A ``ValueError`` to raise.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(value)[:100], names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(
        f"unknown {what} {shortened(value)}: expected one of {', '.join(map(repr, names))}{hint}"
    )


def check_name(what: str, value: object, known: Iterable[str]) -> None:
    """Raise :func:`unknown_name` unless ``value`` is one of ``known``."""
    known = tuple(known)
    if value not in known:
        raise unknown_name(what, value, known)


_SHORT, _LONGEST = reprlib.Repr(), 200
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxother = 4, 8, 80
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = 8
_SHORT.maxstring = _SHORT.maxlong = 120


def shortened(value: Any) -> str:
    """Return what ``repr`` does, but no more than an error line holds."""
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def told(error: BaseException) -> str:
    """Return the message of a library's error in one line, no longer than an error line holds.

    Libraries quote what they could not read, which may be a whole header.
    """
    text = " ".join(str(error)[:10_000].split())
    return text if len(text) <= 2 * _LONGEST else f"{text[: 2 * _LONGEST - 3]}..."


@contextlib.contextmanager
def naming(path: object, way_on: str = "fetch or write the file again") -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into one error that names the file.

    Args:
        path: the file.
        way_on: what to do about it.

    Raises:
        ValueError: one of :data:`STRAY`, or a ``ValueError`` that does not name the file, was raised within; its cause
            is kept. Other errors pass.
    """
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError or str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error
    except STRAY as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, RecursionError):
            what = "is nested too deeply"
        elif isinstance(error, (OverflowError, MemoryError)):
            what = f"holds a number or a size beyond all bounds ({reason or type(error).__name__})"
        else:
            what = f"is damaged, or not what it should be ({type(error).__name__}: {reason})"
        raise ValueError(f"{path} {what}; {way_on}") from error
