"""Fixtures and switches shared by all tests."""

from __future__ import annotations

import os
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from fastamr.host import share_cpus

share_cpus()  # as fastamr's commands do; before torch is imported
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

# Workers beside one another share the cores: one thread each, in the processes that they start too.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
# Without a GPU Triton kernels run in its interpreter, which must be chosen before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run tests and cases that take long")
    parser.addoption(
        "--run-long", action="store_true", help="also run tests that take a quarter of an hour and more"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    run_long = config.getoption("--run-long")
    run_slow = run_long or config.getoption("--run-slow")
    skipped = {
        "slow": None if run_slow else "takes long: run with --run-slow",
        "long": None if run_long else "takes a quarter of an hour and more: run with --run-long",
        "gpu": None
        if torch.cuda.is_available()
        else "needs an NVIDIA GPU; torch.cuda.is_available() is false",
    }
    if run_slow:
        # The slowest first, so that in the end no worker waits for another's.
        items.sort(key=lambda item: "slow" not in item.keywords)
    out = dict.fromkeys(thinned_out(items))
    if not run_slow:
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if item not in out]
    for item in out:
        item.add_marker("slow")
    for item in items:
        for name, reason in skipped.items():
            if reason and name in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs the compiled extension where it is missing; asked for here, because it may compile it first."""
    if not (item.get_closest_marker("extension") or item.get_closest_marker("matrix_unit")):
        return
    from fastamr import native  # not before Triton's interpreter was chosen

    if item.get_closest_marker("extension") and (reason := native.why_not("cpu")) is not None:
        pytest.skip(f"no CPU extension: {reason}")
    if item.get_closest_marker("matrix_unit") and not native.has_matrix_unit():
        pytest.skip("needs a processor with a matrix unit (AMX) for bfloat16, and the CPU extension")


def thinned_out(items: list[pytest.Item]) -> list[pytest.Item]:
    """The cases of ``thinned`` tests that show no new value of a parameter, or no new pair with ``thinned(2)``.

    Cases are taken one after another: always the one that shows the most that is new, then the rarest. On a GPU all
    run.
    """
    tests: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("thinned") and "gpu" not in item.keywords:
            tests.setdefault((item.parent.nodeid, item.originalname), []).append(item)
    out = []
    for cases in tests.values():
        size = (cases[0].get_closest_marker("thinned").args or (1,))[0]
        shows = {case: set(combinations(values_of(case), size)) for case in cases}
        seen: Counter[tuple[tuple[int, ...], ...]] = Counter()
        while cases:
            best = min(
                cases, key=lambda case: (-len(shows[case] - set(seen)), sum(seen[x] for x in shows[case]))
            )
            if not shows[best] - set(seen):
                break
            seen.update(shows[best])
            cases.remove(best)
        out += cases
    return out


def values_of(case: pytest.Item) -> list[tuple[int, ...]]:
    """What a case takes from each of its parametrisations, and from each parameter of a fixture, by identity."""
    left = dict(case.callspec.params)
    values = []
    for mark in case.iter_markers("parametrize"):
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        values.append(tuple(id(left.pop(name.strip())) for name in names))
    return values + [(id(value),) for value in left.values()]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real motion beside the checkout; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data with real motion beside the checkout")
    return folder
