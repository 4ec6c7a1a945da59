"""What a wheel and a source archive hold: every file of the package that git knows, and nothing else."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from .environments import PROJECT, ROOT, built, tracked

NAME, VERSION = PROJECT["name"], PROJECT["version"]
INFO = f"{NAME}-{VERSION}.dist-info"
# Folders of the checkout, their names in the package, and the files of them that belong to it.
PARTS = {
    "fastamr": (
        "fastamr",
        (
            ".py",
            ".yaml",
            ".html",
            ".css",
            "py.typed",
            "registry.json",
            "config.json",
            "model.safetensors",
            "MODEL_CARD.md",
        ),
    ),
    "kernels": ("fastamr/kernels", (".py",)),
    "csrc": ("fastamr/csrc", (".h", ".cpp", ".cu")),
}
WRITTEN = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")


def sources() -> dict[str, str]:
    """The package's files in the checkout, and their names in a wheel."""
    found = {}
    for name in tracked():
        top, _, rest = name.partition("/")
        if top in PARTS and name.endswith(PARTS[top][1]):
            found[name] = f"{PARTS[top][0]}/{rest}"
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_the_packages_files(wheel: Path) -> None:
    assert wheel.name == f"{NAME}-{VERSION}-py3-none-any.whl"
    inside, expected = contents(wheel), sources()
    assert set(inside) == {*expected.values(), *(f"{INFO}/{name}" for name in WRITTEN)}
    for name, place in expected.items():
        assert inside[place] == (ROOT / name).read_bytes(), name
    assert "fastamr/configs/paper/amr.yaml" in inside
    assert "fastamr/py.typed" in inside


def test_the_source_archive_holds_them_and_what_builds_them(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    written = {name for name in names if name.startswith(f"{NAME}.egg-info/")}
    builds = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
    assert names - written == {*sources(), *builds}


@pytest.mark.slow
def test_the_source_archive_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = built("wheel", tmp_path / f"{NAME}-{VERSION}", tmp_path / "wheel", FASTAMR_BUILD="none")
    assert again.name == wheel.name
    assert contents(again) == contents(wheel)


@pytest.mark.slow
def test_with_a_compiler_a_library_lies_in_it(archives: Path, wheel: Path, tmp_path: Path) -> None:
    """A compiler that only writes its output; the real one is ``make check-package``'s."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = -o ] && echo library > "$2"; shift; done\n',
        encoding="utf-8",
    )
    compiler.chmod(0o755)
    binary = built("wheel", archives / "project", tmp_path, FASTAMR_BUILD="cpu", CXX=str(compiler))
    assert binary.name.startswith(f"{NAME}-{VERSION}-py3-none-")
    assert not binary.name.endswith("-any.whl")
    inside, library = contents(binary), "fastamr/native/visible_attention_cpu.so"
    assert set(inside) == {*contents(wheel), library}
    assert inside[library] == b"library\n"


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_built_all_the_same(
    archives: Path, wheel: Path, tmp_path: Path
) -> None:
    missing = {"CXX": "nonesuch", "NVCC": "nonesuch", "CUDA_HOME": "", "CUDA_PATH": ""}
    plain = built("wheel", archives / "project", tmp_path, **missing)
    assert plain.name == wheel.name
    assert contents(plain) == contents(wheel)
