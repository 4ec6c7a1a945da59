"""The first inputs of what ``make fuzz`` does at length, and that its parts do what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_sound_file_is_read(tmp_path: Path) -> None:
    from .run import Worker

    worker = Worker(tmp_path)
    assert len(worker.targets) >= 38
    worker.check_seeds()


@pytest.mark.slow
def test_the_same_5000_spoiled_files() -> None:
    """About a minute; the seed and the number are fixed, so that a slow machine tries what a fast one does."""
    command = [sys.executable, "-m", "tests.fuzzing.run"]
    command += ["--seed", "0", "--inputs", "5000", "--block", "5000", "--seconds", "500"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=550, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert re.search(r"^5000 inputs of 5000 in \d+ s, 0 kinds", result.stdout, re.MULTILINE), result.stdout


@pytest.mark.slow
def test_a_fault_is_found(tmp_path: Path) -> None:
    from .run import TookTooLong, Worker

    worker = Worker(tmp_path, "layout.yaml")
    (target,) = worker.targets

    for error in (KeyError("x"), MemoryError(), TookTooLong(), ValueError("no name of a file")):

        def fail(path: Path, error: BaseException = error) -> None:
            raise error

        object.__setattr__(target, "load", fail)
        worker.feed(0, b"x")
    assert worker.found == 4


def test_spoiling_repeats_itself() -> None:
    from .mutate import change_json, change_lines, change_words, cut_bytes, flip_bytes

    content = b'{"a": [1, 2, {"b": "c"}], "d": 0.5}\n'
    for mutator in (change_json, change_lines, change_words, cut_bytes, flip_bytes):
        found = [mutator(content, Random(seed)) for seed in range(30)]
        assert found == [mutator(content, Random(seed)) for seed in range(30)]
        assert len(set(found)) > 10


def test_an_array_that_claims_too_much_is_not_written(tmp_path: Path) -> None:
    from .mutate import change_array
    from .test_hostile import claim

    for seed in range(40):
        assert len(change_array(claim("(4611686018427387904,)", "<U0"), Random(seed))) < 10_000
