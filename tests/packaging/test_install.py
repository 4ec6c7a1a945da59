"""An installed package: with nothing but what it declares, in editable mode, and after it is removed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from .environments import PROJECT, ROOT, Environment, copy_of_the_checkout, once

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def lived_in(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A folder with an environment ``plain`` that has the wheel, and a user's day ``day`` in it, told in ``said``."""

    def make(folder: Path) -> None:
        plain = Environment.make(folder / "plain")
        plain.pip("install", "--no-index", "--no-deps", wheel)
        day = folder / "day"
        day.mkdir()
        (folder / "said").write_text(plain.run("python", HERE / "a_day.py", day, cwd=day), encoding="utf-8")

    return once(tmp_path_factory, "lived_in", make)


def test_everything_runs_without_compiler_triton_gpu_and_extras(lived_in: Path) -> None:
    said = (lived_in / "said").read_text(encoding="utf-8")
    installed = ("fastamr", "python", "torch", "numpy", "safetensors", "jsonargparse")
    lines = dict(re.findall(r"^(\S+) {2,}(\S.*)$", said, re.M))
    assert lines["fastamr"] == PROJECT["version"]
    assert all(lines[name][0].isdigit() for name in installed), lines
    for name in ("triton", "tensorboard", "matplotlib", "scikit-learn", "onnx", "onnxruntime", "ninja"):
        assert lines[name] == "not installed", name
    assert lines["g++"] == lines["nvcc"] == "not found"
    reason = "the cpu extension is missing: no compiler 'g++' on the path: install it or set CXX"
    assert f"  cpu: {reason}" in said
    assert re.search(r"^visible_attention +sdpa ", said, re.M) or re.search(
        r"^ +visible_attention +sdpa ", said, re.M
    )
    assert "triton: Triton is not installed: pip install 'fastamr[triton]'" in said
    cache = lived_in / "day" / "home" / ".cache" / "fastamr"
    assert f"cache: {cache} (" in said
    assert "pip install 'fastamr[tensorboard]'" in said
    training = said.partition("fastamr check d.safetensors: 0")[2].partition("--updates 2: 0")[0]
    assert training.count("no compiler") == 1, "said once"
    assert training.count("tensorboard is not installed") == 1


def test_the_day_leaves_nothing_elsewhere(lived_in: Path) -> None:
    """Not in the user's home either: without a compiler there is no cache."""
    assert list((lived_in / "day" / "home").iterdir()) == []


def test_pip_finds_nothing_missing(lived_in: Path) -> None:
    plain = Environment(lived_in / "plain")
    said = plain.pip("check", status=0 if "triton" not in str(PROJECT["dependencies"]) else 1)
    assert "No broken requirements found" in said


def test_the_entry_point_runs_where_no_source_is(lived_in: Path, tmp_path: Path) -> None:
    plain = Environment(lived_in / "plain")
    assert plain.run("fastamr", "--version", cwd=tmp_path) == f"fastamr {PROJECT['version']}\n"
    where = plain.run(
        "python", "-c", "import fastamr, fastamr.configs; print(fastamr.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()) == plain.site / "fastamr" / "__init__.py"


def test_each_optional_package_that_is_missing_is_one_line(lived_in: Path, tmp_path: Path) -> None:
    shutil.copytree(lived_in / "day", tmp_path / "day")
    Environment(lived_in / "plain").run("python", HERE / "without_extras.py", tmp_path / "day", cwd=tmp_path)


FAKE_COMPILER = (
    '#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1.0; exit 0; fi\n'
    'while [ $# -gt 0 ]; do [ "$1" = -o ] && echo library > "$2"; shift; done\n'
)


def test_removed_it_leaves_the_cache_that_info_names(wheel: Path, tmp_path: Path) -> None:
    """Compiled Python files go too; the cache is emptied by a command, before or by hand after."""
    compiler = tmp_path / "compiler"
    compiler.write_text(FAKE_COMPILER, encoding="utf-8")
    compiler.chmod(0o755)
    with_compiler = {"CXX": str(compiler), "PATH": f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin"}
    venv = Environment.make(tmp_path / "venv")
    before = venv.files()
    venv.pip("install", "--no-index", "--no-deps", wheel)
    venv.run("fastamr", "info", "--build", cwd=tmp_path, **with_compiler)
    said = venv.run("python", HERE / "a_day.py", tmp_path, "modules", "info", cwd=tmp_path, **with_compiler)
    assert len([name for name in venv.files() - before if name.endswith(".pyc")]) > 300
    cache = tmp_path / "home" / ".cache" / "fastamr"
    assert f"cache: {cache} (0.0 MiB; fastamr cache --clear empties it)" in said
    assert [path.name for path in cache.glob("*.so")] != []
    home = {path for path in (tmp_path / "home").rglob("*") if cache not in (path, *path.parents)}
    assert home == {tmp_path / "home" / ".cache"}
    assert "deleted: " in venv.run("fastamr", "cache", "--clear", cwd=tmp_path, **with_compiler)
    assert not cache.exists()
    venv.pip("uninstall", "--yes", "fastamr")
    assert venv.files() == before


def test_an_editable_install_runs_the_checkout(tmp_path: Path) -> None:
    project = copy_of_the_checkout(tmp_path / "project")
    before_project = {path.relative_to(project) for path in project.rglob("*")}
    venv = Environment.make(tmp_path / "venv", "setuptools")
    before = venv.files()
    venv.pip("install", "--no-index", "--no-deps", "--no-build-isolation", "--editable", project)
    code = "import fastamr, fastamr.kernels.strides as kernel; print(fastamr.__file__, kernel.__file__)"
    found = venv.run("python", "-c", code, cwd=tmp_path, PYTHONDONTWRITEBYTECODE="1").split()
    assert found == [str(project / "fastamr" / "__init__.py"), str(project / "kernels" / "strides.py")]
    said = venv.run("fastamr", "info", cwd=tmp_path, PYTHONDONTWRITEBYTECODE="1")
    assert "back ends on cpu" in said
    venv.pip("uninstall", "--yes", "fastamr")
    assert venv.files() == before
    after = {path.relative_to(project) for path in project.rglob("*")}
    left = {path for path in after - before_project if path.parts[0] not in ("build", "fastamr.egg-info")}
    assert left == set()


def test_the_checkout_is_as_it_was(archives: Path) -> None:
    """Nothing of these tests is built in the folder that people work in."""
    assert archives.is_dir()
    assert not (ROOT / "build").exists() or "bdist" not in str(list((ROOT / "build").iterdir()))
