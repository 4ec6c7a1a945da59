from __future__ import annotations

import math

import pytest
import torch

from fastamr.data.packed.ragged import first_true, last_true, latest_true, median, ranges, row_owner


@pytest.fixture(params=range(5))
def case(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Offsets of some sequences, a random mask over their rows, and values with ties."""
    generator = torch.Generator().manual_seed(request.param)
    lengths = torch.randint(1, 7, (9,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    rows = int(offsets[-1])
    mask = torch.rand(rows, generator=generator) < 0.4
    return offsets, mask, torch.randint(0, 4, (rows,), generator=generator).float()


def test_ranges() -> None:
    rows = ranges(torch.tensor([5, 2, 9]), torch.tensor([2, 0, 3]))
    assert rows.tolist() == [5, 6, 9, 10, 11]


def test_against_loops(case: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    offsets, mask, values = case
    owner, count = row_owner(offsets), offsets.numel() - 1
    first, last = first_true(mask, owner, count), last_true(mask, owner, count)
    latest, middle = latest_true(mask, owner, offsets), median(values, mask, owner, count)
    for body in range(count):
        rows = range(int(offsets[body]), int(offsets[body + 1]))
        true = [row for row in rows if mask[row]]
        assert all(int(owner[row]) == body for row in rows)
        assert int(first[body]) == (true[0] if true else -1)
        assert int(last[body]) == (true[-1] if true else -1)
        for row in rows:
            before = [place for place in true if place <= row]
            assert int(latest[row]) == (before[-1] if before else true[0] if true else -1)
        if true:
            expected = sorted(float(values[row]) for row in true)[(len(true) - 1) // 2]
            assert float(middle[body]) == expected
        else:
            assert math.isnan(float(middle[body]))
