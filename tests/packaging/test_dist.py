"""What ``make dist`` builds: installed where no compiler is, the wheel runs on the library that lies in it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from .environments import PROJECT, ROOT, Environment, call, once, tracked

HERE = Path(__file__).resolve().parent
TOOL = ROOT / "tools" / "make_dist.py"
NAME = f"{PROJECT['name']}-{PROJECT['version']}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="needs Linux and g++"),
]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the command built in ``dist``, and what it said in ``said``."""
    tracked()  # without git this skips

    def make(folder: Path) -> None:
        said = call(sys.executable, TOOL, "--out", folder / "dist", cwd=folder).stdout
        (folder / "said").write_text(said, encoding="utf-8")

    return once(tmp_path_factory, "dist", make)


@pytest.fixture
def wheel(dist: Path) -> Path:
    (found,) = (dist / "dist").glob("*.whl")
    return found


def test_source_archive_and_wheels(dist: Path, wheel: Path) -> None:
    said = (dist / "said").read_text(encoding="utf-8")
    assert (dist / "dist" / f"{NAME}.tar.gz").is_file()
    assert wheel.name.startswith(f"{NAME}-py3-none-")
    assert not wheel.name.endswith("-any.whl")
    with_cuda = list((dist / "dist").glob("cu*/*.whl"))
    assert len(with_cuda) == ("no wheel with the CUDA library: " not in said)
    if torch.version.cuda is None:
        assert f"no wheel with the CUDA library: torch {torch.__version__} is built without CUDA" in said


def test_the_wheel_needs_no_compiler(wheel: Path, tmp_path: Path) -> None:
    """Neither ``FASTAMR_BUILD=none`` nor a cache: the library comes with the wheel, and a step runs on it."""
    venv = Environment.make(tmp_path / "venv")
    venv.pip("install", "--no-index", "--no-deps", wheel)
    info = venv.run("fastamr", "info", cwd=tmp_path)
    assert re.search(r"^g\+\+ +not found$", info, re.M)
    assert re.search(r"^FASTAMR_BUILD +not set$", info, re.M)
    assert f"  cpu: {venv.site / 'fastamr' / 'native' / 'visible_attention_cpu.so'}\n" in info
    assert re.search(r"^ +visible_attention +cpp ", info, re.M)
    day = tmp_path / "day"
    day.mkdir()
    said = venv.run("python", HERE / "a_day.py", day, "motion", "training", cwd=tmp_path)
    assert re.search(r"^speed .*\bcpp: adamw_update", said, re.M | re.S)
    assert list((tmp_path / "home").iterdir()) == [], "nothing was compiled"


def test_nothing_that_was_built_before_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "fastamr-0.0.1.tar.gz").touch()
    told = call(sys.executable, TOOL, "--out", tmp_path, cwd=tmp_path, status=1).stderr
    assert (
        told
        == f"{tmp_path} is not empty: remove what an earlier call built, or name another folder by --out\n"
    )
