"""The CUDA attention kernels where there is no GPU: emulated on the host, and compiled by nvcc if it is there.

``tools/check_cuda.py`` (in ``make check-csrc``) runs the same at full length, under sanitizers, for every architecture.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fastamr.reference.philox import STREAM_DROPOUT, philox_words

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "check_cuda.py"


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_cuda", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_cuda"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler on PATH")
    return load_tool().build_emulation(tmp_path_factory.mktemp("cuda"), "-O1")


def run(*command: object) -> str:
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_emulated_kernels_agree_with_float64(program: Path) -> None:
    assert " 0 failed" in run(program, "--quick")


@pytest.mark.parametrize(
    ("seed", "row", "column"), [((1, 0), 0, 0), ((2**63 - 5, 2**40 + 3), 2**31 + 7, 74), ((-9, 12), 5, 3)]
)
def test_dropout_words_are_the_packages(program: Path, seed: tuple[int, int], row: int, column: int) -> None:
    """The emulated kernels are compared with the oracle's words; those must be what every other back end draws."""
    expected = philox_words(torch.tensor(seed), torch.tensor([row]), column + 1, STREAM_DROPOUT)[0, column]
    assert int(run(program, "--philox", *seed, row, column)) == int(expected)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on PATH")
def test_nvcc_compiles_without_spills() -> None:
    """The papers' head size, for one architecture; the report must be understood, not only printed."""
    report = run(sys.executable, TOOL, "--arch", 90, "--only", "forward_32", "--jobs", 1, "--skip-emulation")
    assert "8 kernels, 0 with spills" in report
    for kernel in ("forward  bf16 E=32 exact", "forward  fp16 E=32 full"):
        assert kernel in report


def test_a_spill_is_seen() -> None:
    """The report's parser on nvcc's own words."""
    report = (
        "ptxas info    : Compiling entry function '_ZN7fastamr3gpu14forward_kernelINS0_4HalfELi64ELNS0_4FormE2EEEvNS_' "
        "for 'sm_90'\nptxas info    : Function properties for _ZN\n"
        "    8 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads\n"
        "ptxas info    : Used 128 registers, used 1 barriers, 8 bytes cumulative stack size\n"
    )
    (usage,) = load_tool().usages_of(report, 90)
    assert (usage.kernel, usage.registers, usage.spills) == ("forward  fp16 E=64 medium", 128, 32)
