"""Archives of the package, and virtual environments that see what they shall see and nothing else."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Named in the environment of a build or of a user's command, these would decide what is tested.
_DECIDING = ("FASTAMR_", "PYTHON", "CXX", "NVCC", "CUDA_", "XDG_", "TRITON_", "PIP_REQUIRE", "VIRTUAL_ENV")


def environment(**named: str) -> dict[str, str]:
    """The variables of this process without those that decide what is tested, and others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_DECIDING)}
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"} | named


def call(*command: str | Path, cwd: Path, status: int = 0, **named: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must end with a status."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment(**named),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def tracked() -> list[str]:
    """The files of the project, as git knows them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git: the files of the package cannot be listed")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def copy_of_the_checkout(folder: Path) -> Path:
    """Copy the project's files, so that building leaves nothing behind."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def built(kind: str, project: Path, folder: Path, **named: str) -> Path:
    """Build a ``"wheel"`` or ``"sdist"`` as pip does, with the setuptools that is here.

    Args:
        kind: which.
        project: a project's folder.
        folder: where the archive goes.
        named: variables of the environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    done = call(sys.executable, "-c", code, cwd=project, **named)
    return folder / done.stdout.splitlines()[-1]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that is made once for all workers of a test run."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    with (shared / f"{name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / "made").touch()
    return folder


def needed(*requirements: str) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that requirements lead to, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "") for text in requirements]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = requirement.name.lower().replace("_", "-")
        found.setdefault(name, importlib.metadata.distribution(name))
        for one in ("", *requirement.extras):
            if (name, one) not in seen:
                seen.add((name, one))
                todo += [(Requirement(text), one) for text in found[name].requires or ()]
    return found


def show_only(folder: Path, *requirements: str, hidden: tuple[str, ...] = ()) -> None:
    """Fill a folder with links to installed packages and to what they need, to be put on a path."""
    folder.mkdir()
    for name, distribution in needed(*requirements).items():
        for top in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if name not in hidden and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the declared dependencies, which are linked, and without Triton and all else.

    Its commands find no program on their path but its own, so no compiler either.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path, *requirements: str) -> Environment:
        """Make one with the dependencies of the package and other requirements."""
        call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        made = cls(folder)
        show_only(folder / "linked", *PROJECT["dependencies"], *requirements, hidden=("triton",))
        (made.site / "linked.pth").write_text(f"{folder / 'linked'}\n", encoding="utf-8")
        return made

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        """Where packages are installed."""
        (found,) = (self.folder / "lib").glob("python3*/site-packages")
        return found

    def files(self) -> set[str]:
        """Every file and folder in it, compiled Python files among them; the linked packages left out."""
        inside = (path.relative_to(self.folder) for path in self.folder.rglob("*"))
        return {str(path) for path in inside if path.parts[0] != "linked"}

    def pip(self, *words: str | Path, status: int = 0) -> str:
        """Run pip for it; return what it prints."""
        return call(
            sys.executable, "-m", "pip", "--python", self.python, *words, cwd=self.folder, status=status
        ).stdout

    def run(self, *words: str | Path, cwd: Path, status: int = 0, **named: str) -> str:
        """Run a program of its own; return both outputs as one.

        Args:
            words: the program's name and its words.
            cwd: where; its folder ``home`` is the user's.
            status: what it must end with.
            named: variables.
        """
        (cwd / "home").mkdir(exist_ok=True)
        own = {"PATH": str(self.folder / "bin"), "HOME": str(cwd / "home"), **named}
        done = call(self.folder / "bin" / words[0], *words[1:], cwd=cwd, status=status, **own)
        return done.stdout + done.stderr
