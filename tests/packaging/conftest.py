"""The archives, built once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environments import built, copy_of_the_checkout, once

# What lies about in a folder that people work in, and belongs into no archive.
LITTER = (
    "fastamr/__pycache__/cli.cpython-311.pyc",
    "fastamr/configs/small/.amr.yaml.swp",
    "fastamr/native/visible_attention_cpu.so",
    "csrc/cpu/visible_attention.o",
    "kernels/__pycache__/tiles.cpython-311.pyc",
    "build/lib/fastamr/of_an_earlier_version.py",
    "build/lib/fastamr/native/visible_attention_cpu.so",
    "fastamr.egg-info/SOURCES.txt",
    ".ruff_cache/0",
    "runs/last/model.safetensors",
)


def build_all(folder: Path) -> None:
    """A source archive and a wheel of a littered checkout."""
    project = copy_of_the_checkout(folder / "project")
    for name in LITTER:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("tests/test_info.py\n", encoding="utf-8")
    built("sdist", project, folder / "sdist")
    built("wheel", project, folder / "wheel", FASTAMR_BUILD="none")


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``sdist/*.tar.gz`` and ``wheel/*.whl``."""
    return once(tmp_path_factory, "archives", build_all)


@pytest.fixture(scope="session")
def sdist(archives: Path) -> Path:
    """The source archive."""
    (found,) = (archives / "sdist").iterdir()
    return found


@pytest.fixture(scope="session")
def wheel(archives: Path) -> Path:
    """The wheel, without a compiled library."""
    (found,) = (archives / "wheel").iterdir()
    return found
