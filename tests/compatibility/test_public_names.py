"""Names that commit 3da80ac handed on are still there: of the package, and of the models' tensors.

The lists lie in ``tests/fixtures/saved_run``, written by its ``make.py`` with the commit's package.
"""

from __future__ import annotations

import importlib
import json
import runpy
from pathlib import Path

import pytest

SAVED = Path(__file__).resolve().parents[1] / "fixtures" / "saved_run"
NAMES: dict[str, list[str]] = json.loads((SAVED / "names.json").read_text(encoding="utf-8"))
STATE_DICTS: dict[str, dict[str, str]] = json.loads((SAVED / "state_dicts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", NAMES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_public_name_is_still_importable(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in NAMES[package] if not hasattr(module, name)] == []


def test_modules_that_the_documentation_named_are_still_importable() -> None:
    assert importlib.import_module("fastamr.models.encoder").SkeletonEncoder.__module__.startswith(
        "fastamr.models"
    )
    assert callable(importlib.import_module("fastamr.models.masking").choose_visible)


@pytest.fixture(scope="module")
def today() -> dict[str, dict[str, str]]:
    return runpy.run_path(str(SAVED / "make.py"))["state_dicts"]()


@pytest.mark.parametrize("model", STATE_DICTS)
def test_every_tensor_has_its_name_shape_and_type(model: str, today: dict[str, dict[str, str]]) -> None:
    assert today[model] == STATE_DICTS[model]
