from __future__ import annotations

import pytest

import fastamr
from fastamr import info, native, ops


def test_report_names_versions_devices_and_every_op() -> None:
    text = info.report()
    assert f"fastamr          {fastamr.__version__}" in text
    assert "torch" in text
    assert "cpu:" in text
    for op in ops.availability("cpu"):
        assert op in text


def test_report_shows_the_choice_and_the_reason() -> None:
    line = next(x for x in info.report().splitlines() if x.strip().startswith("visible_attention"))
    assert "sdpa" in line
    with fastamr.backend(visible_attention="reference"):
        line = next(x for x in info.report().splitlines() if x.strip().startswith("visible_attention"))
    assert "reference    (" in line
    assert "sdpa: can run" in line


def test_the_cpu_line_tells_of_the_matrix_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    for present, words in ((True, ", matrix unit in use"), (False, ", no matrix unit in use")):
        monkeypatch.setattr(native, "has_matrix_unit", lambda present=present: present)
        (line,) = (x for x in info.report().splitlines() if x.startswith("  cpu: ") and "threads" in x)
        assert line.endswith(words)
