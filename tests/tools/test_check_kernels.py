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


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
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
