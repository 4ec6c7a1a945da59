"""Random calls of every op: right as float64 is, or refused; a larger number of them with ``make fuzz-ops``."""

from __future__ import annotations

import pytest

from fastamr.testing.fuzzed_calls import Tally, check_call

needs_extension = pytest.mark.extension


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpp", marks=needs_extension)])
def test_random_calls_are_right_or_refused(backend: str) -> None:
    tally = Tally()
    for number in range(400):
        check_call(number, tally, backend)
    assert sum(tally.agreed.values()) > 150, tally
    assert sum(tally.refused.values()) > 50, tally
    assert len(tally.agreed) >= 12, tally


@needs_extension
@pytest.mark.slow
def test_many_random_calls_are_right_or_refused() -> None:
    tally = Tally()
    for number in range(400, 5000):
        check_call(number, tally)
