"""The example in docs/pretraining.md runs and does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pretraining.md"


def test_own_module_example_learns() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), found)
    assert found["step"].update == len(found["losses"]) == 50
    assert sum(found["losses"][-10:]) < 0.5 * sum(found["losses"][:10])
    assert (found["step"].graph_reason is None) == torch.cuda.is_available()
