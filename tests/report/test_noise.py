"""When two measurements differ by more than their rounds do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastamr.report import ReportOptions, build_report
from fastamr.report.noise import Rounds, compare

from .made import ENVIRONMENT, PageReader, case, ladder, profile, pytest_json, rung
from .test_page import Write

QUIET = [10.0, 10.1, 10.2, 9.9, 10.0, 10.1]
SLOW = [11.0, 11.1, 11.2, 10.9, 11.0, 11.1]


def told(before: list[float], after: list[float]) -> str:
    return compare(Rounds.of(before), Rounds.of(after))


def without_rounds(times: list[float]) -> Rounds:
    return replace(Rounds.of(times), times=())


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (QUIET, SLOW, "slower"),
        (SLOW, QUIET, "faster"),
        (QUIET, [*QUIET[:-1], 30.0], "within noise"),  # one slow round
        (QUIET, [9.0, 13.0, 9.5, 12.0, 10.1, 11.0], "within noise"),  # slower at the middle, but it swings
        (QUIET[:4], SLOW[:4], "too few rounds"),  # chance parts four and four in 1 of 35 cases
        (QUIET[:5], SLOW[:5], "slower"),
        (QUIET[:2], SLOW, "too few rounds"),
        ([10.0] * 6, [11.0] * 6, "slower"),
    ],
)
def test_verdicts(before: list[float], after: list[float], verdict: str) -> None:
    assert told(before, after) == verdict
    if verdict != "too few rounds" and len(before) > 5:
        assert compare(without_rounds(before), without_rounds(after)) == verdict


def test_a_single_time_is_never_judged() -> None:
    assert compare(Rounds(10.0), Rounds(20.0)) == "no rounds"


def test_chance_rarely_makes_a_mark() -> None:
    """Of 400 pairs of one distribution with long tails at most 1 in 100 is marked; a shift of 3 deviations is."""
    random = np.random.default_rng(0)
    marked = found = 0
    for _ in range(400):
        size = int(random.integers(5, 20))
        before, after = random.lognormal(2.0, 0.1, size), random.lognormal(2.0, 0.1, size)
        marked += told(before.tolist(), after.tolist()) != "within noise"
        found += told(before.tolist(), (after * np.exp(0.3)).tolist()) == "slower"
    assert marked <= 4
    assert found >= 380


def compared(write: Write, first: object, second: object) -> PageReader:
    paths = [write("first.json", first), write("second.json", second)]
    return PageReader(build_report(paths, ReportOptions(clips=0)))


def test_marks_of_two_ladders(write: Write) -> None:
    first = ladder(rung("a", QUIET), rung("b", QUIET), rung("gone", QUIET), rung("c", None, reason="x"))
    second = ladder(rung("a", SLOW), rung("b", QUIET), rung("c", QUIET), rung("new", QUIET))
    page = compared(write, first, second)
    assert ["rung a", "SLOWER beyond noise", "1.10x", "10.1 ms", "11.1 ms"] in page.rows
    assert ["rung b", "within noise", "1.00x", "10.1 ms", "10.1 ms"] in page.rows
    assert "1 slower and 0 faster beyond noise, of 2 in both files." in page.text
    assert "first.json: rung gone" in page.text
    assert "second.json: rung new" in page.text
    marks = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert sum("worse" in (mark or "").split() for mark in marks) == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sequences": 4}, "Not the same was measured (sequences 2 and 4): nothing is marked."),
        (
            {"architecture": {"width": 32}},
            "Not the same was measured (model.width 16 and 32): nothing is marked.",
        ),
        ({"environment": {**ENVIRONMENT, "device_name": "CPU two"}}, "Another machine: nothing is marked."),
    ],
)
def test_nothing_is_marked_where_something_else_was_measured(
    write: Write, more: dict[str, object], words: str
) -> None:
    page = compared(write, ladder(rung("a", QUIET)), ladder(rung("a", SLOW), **more))
    assert words in page.text
    assert ["rung a", "not judged", "1.10x", "10.1 ms", "11.1 ms"] in page.rows
    assert "beyond noise, of" not in page.text


def test_another_version_is_told_and_marked(write: Write) -> None:
    later = ladder(rung("a", SLOW), environment={**ENVIRONMENT, "torch": "3.0", "load": 2.0})
    page = compared(write, ladder(rung("a", QUIET)), later)
    assert "Measured on: torch 2.13.0 and 3.0." in page.text
    assert "second.json: other processes kept the machine busy (2.0 wanted to run for each core)" in page.text
    assert ["rung a", "SLOWER beyond noise", "1.10x", "10.1 ms", "11.1 ms"] in page.rows


@pytest.mark.parametrize("keep", [True, False])
def test_two_files_of_pytest_benchmark(write: Write, keep: bool) -> None:
    first = pytest_json(
        case("test_a", [t / 1e3 for t in QUIET], keep=keep), case("test_b", [1e-6, 2e-6, 1e-6])
    )
    second = pytest_json(
        case("test_a", [t / 1e3 for t in SLOW], keep=keep), case("test_b", [2e-6, 3e-6, 4e-6])
    )
    page = compared(write, first, second)
    assert ["test_a", "SLOWER beyond noise", "1.10x", "10.1 ms", "11.1 ms"] in page.rows
    assert ["test_b", "too few rounds", "3.00x", "1 µs", "3 µs"] in page.rows


def test_profiles_are_compared_without_marks(write: Write) -> None:
    kernels = [dict(row, ms=row["ms"] * 3) for row in profile()["kernels"]]
    page = compared(write, profile(), profile(kernels=kernels, wall_ms=80.0))
    assert ["an update under the profiler", "no rounds", "1.60x", "50 ms", "80 ms"] in page.rows
    assert ["aten::k0", "no rounds", "3.00x", "9 ms", "27 ms"] in page.rows
    assert "nothing is marked" in page.text


def test_the_first_file_is_what_later_ones_are_held_against(write: Write, tmp_path: Path) -> None:
    for name, times in (("a", QUIET), ("b", SLOW), ("c", SLOW)):
        write(f"{name}/ladder.json", ladder(rung("x", times)))
    paths = [tmp_path / name for name in "abca"]  # the first one named twice is read once
    page = PageReader(build_report(paths, ReportOptions(clips=0)))
    assert page.rows.count(["rung x", "SLOWER beyond noise", "1.10x", "10.1 ms", "11.1 ms"]) == 2
