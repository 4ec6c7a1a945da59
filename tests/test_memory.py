"""Memory that the process keeps: when it does, and that the system clears no page twice."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastamr import cli, memory

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    memory.keep_freed_memory.cache_clear()
    yield
    memory.keep_freed_memory.cache_clear()


def test_the_environment_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAMR_KEEP_MEMORY", "0")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("the C library must not be touched"))
    assert not memory.keep_freed_memory()


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_another_c_library(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def library(name: None) -> object:
        raise error("mallopt")

    monkeypatch.delenv("FASTAMR_KEEP_MEMORY", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert not memory.keep_freed_memory()


def test_commands_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: asked.append(True))
    assert cli.main(["--help"]) == 0
    assert asked == [True]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's mallopt")
def test_freed_memory_is_used_again() -> None:
    """Three buffers of 20 MB, thirty times: their pages are cleared once instead of every time."""
    code = (
        "import ctypes, resource\nfrom fastamr.memory import keep_freed_memory\nprint(keep_freed_memory())\n"
        "library, size = ctypes.CDLL(None), ctypes.c_size_t(20 << 20)\n"
        "allocate, free = library.malloc, library.free\n"
        "allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_size_t]\nfree.argtypes = [ctypes.c_void_p]\n"
        "def faults(rounds):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(rounds):\n        buffers = [allocate(size) for _ in range(3)]\n"
        "        for each in buffers:\n            ctypes.memset(each, 1, size.value)\n"
        "        for each in reversed(buffers):\n            free(each)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(3)\nprint(faults(30))\n"
    )
    # Other settings of the C library, and other libraries in its place, are left out of the comparison.
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))
    }
    done, count = {}, {}
    for value in ("0", "1"):
        environment = {
            **plain,
            "PYTHONPATH": str(ROOT),
            "FASTAMR_KEEP_MEMORY": value,
            "OMP_NUM_THREADS": "1",
            "GLIBC_TUNABLES": "",
        }
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        done[value], faults = run.stdout.split()
        count[value] = int(faults)
    assert done == {"0": "False", "1": "True"}
    assert count["1"] < 0.1 * count["0"]
