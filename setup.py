"""Builds the compiled extension into the wheel where it can be built; everything else is in pyproject.toml.

``FASTAMR_BUILD``: ``auto`` (default) builds what it can and never fails an installation, ``none`` builds nothing,
``cpu`` and ``cuda`` fail where the library of that name cannot be built. What is not in the wheel is compiled on first
use. pip's build isolation hides torch and its headers: ``pip install --no-build-isolation .`` builds the library.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True  # the checkout stays as it is
from fastamr.host import allowed_cpus  # noqa: E402


def load_build() -> ModuleType:
    """fastamr/native/build.py by its path: importing the package would need torch."""
    spec = importlib.util.spec_from_file_location("fastamr_native_build", ROOT / "fastamr/native/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class BuildWithExtension(build_py):
    """Copies the Python files, then compiles the libraries beside them; an editable install compiles on first use."""

    def run(self) -> None:
        """Build."""
        if not self.editable_mode:
            # What an earlier version left there would be in this wheel.
            shutil.rmtree(Path(self.build_lib, "fastamr"), ignore_errors=True)
        super().run()
        if self.editable_mode:
            return
        build = load_build()
        named = os.environ.get("FASTAMR_BUILD", "auto")
        for device in build.DEVICES:
            library = Path(self.build_lib, "fastamr", "native", build.library_name(device))
            library.unlink(missing_ok=True)
            if device not in build.chosen_devices():
                continue
            try:
                build.build(build.plan_for(device), library, allowed_cpus())
            except (build.BuildError, OSError) as error:
                if named == device:
                    raise SystemExit(f"FASTAMR_BUILD={named}: {error}") from error
                print(f"fastamr: the {device} extension is not in this wheel: {error}", file=sys.stderr)


class PlatformWheel(bdist_wheel):
    """One wheel for every Python: the libraries use torch's stable ABI and not Python's."""

    def get_tag(self) -> tuple[str, str, str]:
        """The platform is named only if a library is inside."""
        platform = super().get_tag()[2]
        has_library = any(Path(self.bdist_dir).rglob("visible_attention_*.so"))
        return "py3", "none", platform if has_library else "any"


class MaybeBinary(Distribution):
    """A distribution whose wheel may hold libraries, so that its platform is known when the wheel is named."""

    def has_ext_modules(self) -> bool:
        """Let the platform be computed; the wheel's final name says whether it matters."""
        return True


commands: dict[str, Any] = {"build_py": BuildWithExtension, "bdist_wheel": PlatformWheel}
setup(cmdclass=commands, distclass=MaybeBinary)
