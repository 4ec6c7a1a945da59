from __future__ import annotations

import fastamr
from fastamr import info, ops


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
