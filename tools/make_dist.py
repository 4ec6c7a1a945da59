"""Builds what a release publishes: make_dist.py [--out dist].

The source archive, and a wheel with the compiled CPU library in it. Where torch is built for CUDA and its nvcc is
there, also a wheel with both libraries, in a folder named after that CUDA (``dist/cu130``), because the wheels have one
name. A library that does not compile ends the command. Nothing is built in the checkout itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, cwd: Path, **named: str) -> str:
    """Show a command, run it, and return what it says; end with its words where it fails.

    Variables of the caller that would decide what is built or tested (``PYTHON...``, ``FASTAMR_...``) are left out.
    """
    print("$", *words, flush=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FASTAMR_"))}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=kept | named, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout}\n{words[0]} ended with {done.returncode}")
    return done.stdout


def copy_checkout(folder: Path) -> Path:
    """Copy the files that git knows, or would know, to a new folder: building leaves files behind."""
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def build(kind: str, project: Path, folder: Path, **named: str) -> Path:
    """Build an archive with this interpreter, which has torch, so that a wheel gets its library.

    Args:
        kind: ``"sdist"`` or ``"wheel"``.
        project: the project's folder.
        folder: where the archive goes; no other archive of this kind lies there.
        named: variables of the environment, as ``FASTAMR_BUILD``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    code = f"from setuptools import build_meta as b; b.build_{kind}({str(folder)!r})"
    run(sys.executable, "-c", code, cwd=project, **named)
    (made,) = folder.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


def why_no_cuda() -> str | None:
    """Why no wheel with the CUDA library can be built here, or None."""
    sys.path.insert(0, str(ROOT))
    from fastamr.native.build import BuildError, plan_for

    try:
        plan_for("cuda")
    except BuildError as error:
        return str(error)
    return None


def main() -> None:
    """Carry out the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder (default: dist)")
    out = parser.parse_args().out.resolve()
    if out.is_dir() and any(out.iterdir()):
        sys.exit(f"{out} is not empty: remove what an earlier call built, or name another folder by --out")
    with tempfile.TemporaryDirectory() as name:
        project = copy_checkout(Path(name).resolve() / "project")
        made = [build("sdist", project, out), build("wheel", project, out, FASTAMR_BUILD="cpu")]
        reason = why_no_cuda()
        if reason is None:
            import torch

            folder = out / f"cu{str(torch.version.cuda).replace('.', '')}"
            made.append(build("wheel", project, folder, FASTAMR_BUILD="cuda"))
    for archive in made:
        print(f"{archive} ({archive.stat().st_size / 2**20:.1f} MiB)")
    if reason is not None:
        print(f"no wheel with the CUDA library: {reason}")


if __name__ == "__main__":
    main()
