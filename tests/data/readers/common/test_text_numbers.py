from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastamr.data.readers.common.sources import DamagedFile
from fastamr.data.readers.common.text_numbers import read_numbers

numbers = st.floats(width=64, allow_nan=False) | st.integers(-(2**60), 2**60)


@given(st.lists(st.lists(numbers, max_size=5), max_size=8), st.sampled_from(["\n", "\r\n", " \n", "\n\n"]))
def test_every_number_on_its_line(rows: list[list[float]], end: str) -> None:
    content = end.join("\t ".join(map(repr, row)) for row in rows).encode()
    filled = [row for row in rows if row]
    if not filled:
        with pytest.raises(DamagedFile, match=r"is empty|holds blanks only"):
            read_numbers(content)
        return
    text = read_numbers(content)
    assert text.counts.tolist() == [len(row) for row in filled]
    np.testing.assert_array_equal(
        text.values, np.array([value for row in filled for value in row], dtype=float)
    )
    for row, first, line in zip(filled, text.first.tolist(), text.lines.tolist(), strict=True):
        assert text.values[first] == float(row[0])
        assert text.word(first) == repr(row[0]).encode()
        assert content.split(b"\n")[line - 1].split()[0] == repr(row[0]).encode()


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        text = read_numbers(content)
    except DamagedFile:
        return
    words = content.removeprefix(b"\xef\xbb\xbf").split()
    np.testing.assert_array_equal(text.values, [float(word) for word in words])
    assert text.counts.sum() == len(words)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"1 2\n3 four 5\n", 2, "'four' is not a number"),
        (b"1 2\n\n\n3 1.2.3\n", 4, "'1.2.3' is not a number"),
        (b"1-2 3\n", 1, "'1-2' is not a number"),
        (b"1-2 3 x", 1, "'1-2' is not a number"),
        (b"1,5 2\n", 1, "'1,5' is not a number"),
        (b"1_0\n", 1, "'1_0' is not a number"),
        (b"1\n0x1f\n", 2, "'0x1f' is not a number"),
        (b"1\n2 \xc3\xa9\n", 2, "holds the byte 0xc3, expected ASCII"),
        (b"1\n2\x00\n", 2, "holds the byte 0x00"),
        ("1\n2".encode("utf-16"), 1, "is UTF-16 text"),
        (b"", None, "is empty"),
        (b" \r\n\t\n", None, "holds blanks only"),
        (b"1 \x0e2", 1, "is not a number"),
    ],
)
def test_what_is_wrong_and_where(content: bytes, line: int | None, message: str) -> None:
    with pytest.raises(DamagedFile) as raised:
        read_numbers(content)
    assert message in raised.value.reason
    assert raised.value.line == line


def test_a_utf8_mark_is_no_damage() -> None:
    assert read_numbers(b"\xef\xbb\xbf1 nan -inf").values[0] == 1.0
