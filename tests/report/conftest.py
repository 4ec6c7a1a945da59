"""Results as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], str]:
    """Write values as JSON and return the path."""

    def written(name: str, values: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
        return str(path)

    return written
