"""Installs the package as a user does, into clean virtual environments where pip resolves everything: check_package.py.

The source archive, with pip's build isolation, so without a compiled library; the wheel that torch was visible for,
with one. In each: ``pip check``, a user's day (``tests/packaging/a_day.py``) and removal. ``--lowest`` takes the lowest
versions that pyproject.toml allows, of which torch may be a CUDA build of several GB.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lowest() -> list[str]:
    """The dependencies, each pinned to the lowest version that is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.sub(r">=", "==", requirement) for requirement in project["dependencies"]]


def run(*words: str | Path, cwd: Path, **named: str) -> str:
    """Show a command, run it, show what it says; end with its words where it fails."""
    print("$", *words, flush=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FASTAMR_"))}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=kept | named, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout}\n{words[0]} ended with {done.returncode}")
    return done.stdout


def check(place: Path, python: str, archive: Path, pins: list[str], with_library: bool) -> None:
    """Install an archive into a new environment, use it, and remove it.

    Args:
        place: an empty folder.
        python: the interpreter.
        archive: a source archive or a wheel.
        pins: requirements that hold besides.
        with_library: whether the extension that it uses must be the one that it brought.
    """
    run(python, "-m", "venv", place / "venv", cwd=place)
    own = place / "venv" / "bin" / "python"
    run(own, "-m", "pip", "install", "--quiet", "--upgrade", "pip", cwd=place)
    before = set((place / "venv").rglob("fastamr*"))
    run(own, "-m", "pip", "install", "--quiet", archive, *pins, cwd=place)
    print(run(own, "-m", "pip", "check", cwd=place))
    day, home = place / "day", place / "home"
    day.mkdir()
    home.mkdir()
    where = {"HOME": str(home), "FASTAMR_CACHE": str(place / "cache")}
    said = run(own, ROOT / "tests" / "packaging" / "a_day.py", day, cwd=place, **where)
    print(said)
    if with_library != (f"  cpu: {place / 'venv'}" in said):
        sys.exit(f"the extension of {archive.name} should {'' if with_library else 'not '}come with it")
    run(own, "-m", "pip", "uninstall", "--quiet", "--yes", "fastamr", cwd=place)
    if left := set((place / "venv").rglob("fastamr*")) - before:
        sys.exit(f"left after the removal: {sorted(left)}")


def main() -> None:
    """Carry out the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter (default: this one)")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions that are allowed")
    given = parser.parse_args()
    pins = lowest() if given.lowest else ["--constraint", str(ROOT / "constraints.txt")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for kind in ("sdist", "wheel", "from_sdist", "from_wheel", "copy"):
            (folder / kind).mkdir()
        # Building leaves files behind, so a copy is built; this interpreter has torch, so the wheel gets its library.
        listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
        for file in listed:
            (folder / "copy" / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / "copy" / file).write_bytes((ROOT / file).read_bytes())
        code = "from setuptools import build_meta as b; b.build_{0}({1!r})"
        for kind in ("sdist", "wheel"):
            run(sys.executable, "-c", code.format(kind, str(folder / kind)), cwd=folder / "copy")
        (sdist,), (wheel,) = (list((folder / kind).iterdir()) for kind in ("sdist", "wheel"))
        check(folder / "from_sdist", given.python, sdist, pins, False)
        check(folder / "from_wheel", given.python, wheel, pins, not wheel.name.endswith("-any.whl"))
    print(f"{sdist.name} and {wheel.name}: installed, used and removed")


if __name__ == "__main__":
    main()
