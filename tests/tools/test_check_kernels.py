"""The ahead-of-time check compiles what launchers launch, and sees a spill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "check_kernels.py"

# One warp holds a tile of 128 x 128 numbers: 512 a thread, where 255 registers are the most there are.
SPILLING = """
import sys
sys.path[:0] = [{root!r}, {tools!r}]
import check_kernels, torch, triton, triton.language as tl
from fastamr.kernels.launch import Config, launch, record

@triton.jit
def tile(source, target, BLOCK: tl.constexpr):
    rows, columns = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    values = tl.load(source + rows * BLOCK + columns)
    tl.store(target + columns * BLOCK + rows, values * tl.sum(values, 0)[None, :])

with record() as launches:
    for warps in (1, 32):
        values = torch.zeros(128, 128)
        launch(tile, (1,), values.device, Config({{"BLOCK": 128}}, num_warps=warps), source=values, target=values)
print(*[check_kernels.compile_launch(written, 90).spills > 0 for written in launches])
"""


# Compiled in the test's own process: what other tests left in the cache would hide the time.
THREE_WINDOWS = """
import sys, time
sys.path[:0] = [{root!r}, {tools!r}]
import check_kernels, torch
from fastamr.kernels.launch import record
from fastamr.kernels.motion_entropy import window_energies

def written(windows):
    with record() as launches:
        window_energies(torch.empty(2, 120, 25, 3), windows, torch.ones(2, 120, 25, dtype=torch.bool))
    return launches[0]

check_kernels.compile_launch(written((5,)), 90)
began = time.process_time()
usage = check_kernels.compile_launch(written((4, 8, 12)), 90)
print(time.process_time() - began, usage.spills)
"""


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment.update(more)
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )


def test_a_kernel_that_fits_passes() -> None:
    done = run(str(TOOL), "--arch", "90", "--only", "sample_clips")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 with spills or errors" in done.stdout


def test_a_case_that_does_not_exist_fails() -> None:
    assert run(str(TOOL), "--only", "no such case").returncode == 1


def test_a_spill_is_seen(tmp_path: Path) -> None:
    script = tmp_path / "spilling.py"
    script.write_text(SPILLING.format(root=str(ROOT), tools=str(TOOL.parent)), encoding="utf-8")
    done = run(str(script))
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_three_windows_compile_at_once(tmp_path: Path) -> None:
    """Unrolled they took 12 s of a processor, for each form of the call anew."""
    script = tmp_path / "windows.py"
    script.write_text(THREE_WINDOWS.format(root=str(ROOT), tools=str(TOOL.parent)), encoding="utf-8")
    done = run(str(script), TRITON_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    seconds, spills = done.stdout.split()
    assert float(seconds) < 1.5
    assert spills == "0"
