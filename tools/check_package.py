"""Installs the package as a user does, into clean virtual environments where pip resolves everything: check_package.py.

The source archive, with pip's build isolation, so without a compiled library; the wheel that torch was visible for,
with one. In each: ``pip check``, a user's day (``tests/packaging/a_day.py``) and removal. ``--lowest`` takes the lowest
versions that pyproject.toml allows, of which torch may be a CUDA build of several GB.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import tomllib
from pathlib import Path

from make_dist import ROOT, build, copy_checkout, run


def lowest() -> list[str]:
    """The dependencies, each pinned to the lowest version that is allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.sub(r">=", "==", requirement) for requirement in project["dependencies"]]


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
        for place in ("from_sdist", "from_wheel"):
            (folder / place).mkdir()
        project = copy_checkout(folder / "copy")
        sdist, wheel = (build(kind, project, folder / kind) for kind in ("sdist", "wheel"))
        check(folder / "from_sdist", given.python, sdist, pins, False)
        check(folder / "from_wheel", given.python, wheel, pins, not wheel.name.endswith("-any.whl"))
    print(f"{sdist.name} and {wheel.name}: installed, used and removed")


if __name__ == "__main__":
    main()
