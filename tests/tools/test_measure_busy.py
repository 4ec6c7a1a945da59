"""The table of ways to wait: every way runs as it is told, and what runs beside it is gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "measure_busy.py"


@pytest.mark.slow
def test_tiny_sizes_make_the_table() -> None:
    words = ["--sizes", "tiny", "--spins", "500", "--rounds", "1", "--steps", "2"]
    told = {"OMP_DISPLAY_ENV": "VERBOSE", "GOMP_SPINCOUNT": "77", "FASTAMR_BUILD": "none"}
    run = subprocess.run(
        [sys.executable, str(TOOL), *words], capture_output=True, text=True, env=os.environ | told
    )
    assert run.returncode == 0, run.stderr
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in run.stdout.splitlines() if "|" in line
    ]
    assert [row[1] for row in rows[2:]] == [
        "library's default", "GOMP_SPINCOUNT=500", "OMP_WAIT_POLICY=passive", "one thread",
    ]  # fmt: skip
    assert all(len(row) == len(rows[0]) and float(row[5]) > 0 for row in rows[2:])
    assert rows[2][3] == "+0.0 %"
    # What the measured processes' library read, not what this one was given.
    assert run.stderr.count("GOMP_SPINCOUNT = '500'") == 1
    assert run.stderr.count("OMP_WAIT_POLICY = 'PASSIVE'") >= 1
    assert "GOMP_SPINCOUNT = '77'" not in run.stderr


def test_busy_processes_work_and_end() -> None:
    spec = importlib.util.spec_from_file_location("measure_busy", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with tool.busy_processes(2) as started:
        assert [process.poll() for process in started] == [None, None]
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
