"""Philox against the published known-answer vectors and against a scalar implementation with Python integers."""

from __future__ import annotations

import pytest
import torch

from fastamr.reference.philox import philox_4x32, philox_words

# Known answers of the Random123 distribution for philox4x32-10: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def scalar_philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, ...], result: tuple[int, ...]) -> None:
    def words(values: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor([value]) for value in values)

    found = philox_4x32(words(key), words(counter))
    assert tuple(word.item() for word in found) == result


def test_word_layout() -> None:
    """Word (row, column) is word ``column % 4`` of the counter documented in the module."""
    key, counter = -0x123456789ABCDEF, (5 << 32) | 77
    words = philox_words(torch.tensor([key, counter]), torch.tensor([3, 9]), 7, stream=2)
    assert words.shape == (2, 7)
    for i, row in enumerate((3, 9)):
        for column in range(7):
            expected = scalar_philox(
                (column // 4, row, 77, 5 ^ (2 << 24)), (key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF)
            )[column % 4]
            assert words[i, column].item() == expected


def test_streams_rows_and_counters_differ() -> None:
    rows = torch.arange(4)
    base = philox_words(torch.tensor([1, 2]), rows, 64, stream=1)
    assert len(base.flatten().unique()) == base.numel()
    for other in (
        philox_words(torch.tensor([1, 2]), rows, 64, stream=2),
        philox_words(torch.tensor([1, 3]), rows, 64, stream=1),
        philox_words(torch.tensor([2, 2]), rows, 64, stream=1),
    ):
        assert (base == other).sum() == 0
