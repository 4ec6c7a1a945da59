"""What reports say of software and machine, and how they write numbers."""

from __future__ import annotations

import json

import pytest
import torch

import fastamr
from fastamr import info, native, ops
from fastamr.devices import environment, package_version, versions
from fastamr.tables import aligned, deviation, markdown, mean_text


def test_report_names_versions_devices_and_every_op() -> None:
    text = info.report()
    assert text.split()[:2] == ["fastamr", fastamr.__version__]
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


def test_columns_end_at_the_right_but_for_those_named() -> None:
    rows = [["encoder", "1-NN", "note"], ["raw", "9.5", ""], ["AMR", "44.1", "two words"]]
    assert aligned(rows, left=(0, -1)).splitlines() == [
        "encoder  1-NN  note",
        "raw       9.5",
        "AMR      44.1  two words",
    ]
    assert aligned([["a", "1"], ["bc", "23"]], left=()).splitlines() == [" a   1", "bc  23"]
    assert aligned([]) == ""


def test_rows_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        aligned([["a", "b"], ["c"]])


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert markdown([["a|b", "n"], ["x", "1"]]).splitlines() == [
        r"| a\|b | n |",
        "| --- | ---: |",
        "| x | 1 |",
    ]


def test_deviation_is_that_of_a_sample() -> None:
    assert deviation([39.0, 41.0]) == pytest.approx(2**0.5)
    assert deviation([40.0]) is None
    assert mean_text([39.0, 41.0]) == "40.0 ± 1.4"
    assert mean_text([39.0, 41.0], "+-") == "40.0 +- 1.4"
    assert mean_text([69.44]) == "69.4"


def test_versions_and_environment_are_plain_values() -> None:
    found = versions("numpy", "no-such-package")
    assert (found["fastamr"], found["torch"]) == (fastamr.__version__, torch.__version__)
    assert found["numpy"] == package_version("numpy")
    assert found["no-such-package"] is None
    facts = environment(torch.device("cpu"))
    assert facts["device_name"].endswith(f"{torch.get_num_threads()} threads")
    assert json.loads(json.dumps(facts)) == facts
