"""Numbers in plain text, converted all at once by NumPy, with what stands on which line checked exactly."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from .sources import DamagedFile

_SPACES = np.zeros(256, dtype=bool)
_SPACES[list(b" \t\n\r\v\f")] = True
_NEWLINE = ord("\n")
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class NumberText:
    """The numbers of a text of ``L`` lines that are not blank.

    Args:
        values: ``(N,)`` float64, all numbers in order.
        counts: ``(L,)`` int64, how many stand on each line.
        first: ``(L,)`` int64, the index of each line's first number.
        lines: ``(L,)`` int64, the line's number in the file, from 1.
        content: the text.
        places: ``(N,)`` int64, where in the text each number starts.
    """

    values: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    lines: np.ndarray
    content: bytes
    places: np.ndarray

    def word(self, index: int) -> bytes:
        """Return a number as it is written."""
        start = int(self.places[index])
        return self.content[start : start + 64].split(None, 1)[0]


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return float32; what is beyond its range becomes infinite, for the caller to refuse."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def read_numbers(content: bytes) -> NumberText:
    """Convert a text of numbers, separated by spaces, tabs and line ends of any system.

    Raises:
        DamagedFile: the text is empty, in another encoding than ASCII (or UTF-8 with its mark), or something in it
            is no number; the message names the line. NaN and infinity are numbers here.
    """
    content = _check_encoding(content)
    if not content.endswith(b"\n"):
        content += b"\n"
    array = np.frombuffer(content, dtype=np.uint8)
    space = _SPACES[array]
    begins = ~space
    begins[1:] &= space[:-1]
    places = np.flatnonzero(begins)
    if len(places) == 0:
        raise DamagedFile("is empty" if len(content) <= 1 else "holds blanks only")
    ends = np.searchsorted(places, np.flatnonzero(array == _NEWLINE))
    counts = np.diff(ends, prepend=0)
    kept = np.flatnonzero(counts)
    return NumberText(
        values=_convert(content, places),
        counts=counts[kept],
        first=ends[kept] - counts[kept],
        lines=kept + 1,
        content=content,
        places=places,
    )


def _check_encoding(content: bytes) -> bytes:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DamagedFile("is UTF-16 text, expected ASCII; save it as plain text", 1)
    content = content.removeprefix(_UTF8_MARK)
    array = np.frombuffer(content, dtype=np.uint8)
    strange = (array > 126) | (array == 0)
    if strange.any():
        place = int(strange.argmax())
        raise DamagedFile(
            f"holds the byte 0x{content[place]:02x}, expected ASCII text", _line_of(content, place)
        )
    return content


def _convert(content: bytes, places: np.ndarray) -> np.ndarray:
    """Return one float64 for each word of the text."""
    try:
        with warnings.catch_warnings():
            # Older NumPy warns where it stops at something that is no number, newer NumPy raises.
            warnings.simplefilter("error", DeprecationWarning)
            values = np.fromstring(content, dtype=np.float64, sep=" ")
    except (DeprecationWarning, ValueError):
        values = np.empty(0)
    # NumPy also stops where no space follows a number, as in "1-2"; the count holds should a version read on.
    if len(values) != len(places):
        raise _find_bad_word(content, places)
    return values


def _find_bad_word(content: bytes, places: np.ndarray) -> DamagedFile:
    for place in places.tolist():
        word = content[place : place + 64].split(None, 1)[0]
        try:
            if b"_" not in word:
                float(word)
                continue
        except ValueError:
            pass
        return DamagedFile(f"{word.decode('ascii')[:40]!r} is not a number", _line_of(content, place))
    return DamagedFile("holds something that is not a number")


def _line_of(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1
