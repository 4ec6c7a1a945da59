"""Files that are damaged, foreign or of another kind: one line that names the file, and no page."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastamr import cli
from fastamr.pages import Text
from fastamr.report import ReportOptions, build_report

from .made import (
    case,
    classifier,
    config,
    distillation,
    evaluation,
    ladder,
    metrics,
    profile,
    pytest_json,
    rung,
    write_run,
)
from .test_page import Write

RESULTS = {
    "ladder": ladder(rung("a", [1.0, 2.0, 3.0])),
    "quick": ladder(rung("a", [1.0, 2.0]), kind="quick"),
    "profile": profile(),
    "pytest": pytest_json(case("test_a", [1e-3, 2e-3]), case("test_b", [1e-3, 2e-3], keep=False)),
    "evaluation": evaluation(),
}
# What nobody's program wrote there.
HOSTILE = (
    None,
    True,
    -1,
    0,
    10**400,
    1e400,
    float("nan"),
    "x",
    "\x1b[2J",
    [],
    [None],
    {},
    {"x": []},
    ["\ud800"],
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a JSON value, inner ones too."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inside:
        yield (*path, name)
        yield from leaves(one, (*path, name))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    result = copy.deepcopy(value)
    inner = result
    for name in path[:-1]:
        inner = inner[name]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return result


def refused(path: object, *more: object, names: object = "") -> str:
    """Return the complaint about a path, which names it, or a file in it; "" where there is a page."""
    try:
        html = build_report([path, *more], ReportOptions(clips=0))  # type: ignore[list-item]
    except (ValueError, OSError) as error:
        words = str(error)
        assert str(names or path) in words
        assert "Traceback" not in words
        return words
    assert html.encode("utf-8")
    assert "\x1b" not in html
    return ""


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings are words: what is asked here is what the files make of the page."""

    def words(*given: object, **more: object) -> Text:
        return Text(str(given[0]))

    monkeypatch.setattr("fastamr.report.result_parts.draw_bars", words)
    monkeypatch.setattr("fastamr.report.run_parts.draw_curves", words)


@pytest.mark.parametrize("kind", RESULTS)
def test_every_value_may_be_wrong(kind: str, write: Write, undrawn: None) -> None:
    """Each value of a file replaced by each hostile one, and left out: a page, or one line that names the file."""
    good, count = RESULTS[kind], 0
    second = write("second.json", good)
    assert refused(second) == ""
    for place, path in enumerate(leaves(good)):
        for new in (HOSTILE[place % len(HOSTILE)], HOSTILE[(3 * place + 5) % len(HOSTILE)], ...):
            count += refused(write("first.json", changed(good, path, new)), second) != ""
    assert count > 10


@pytest.mark.parametrize("kind", ["classifier", "distillation"])
def test_every_value_of_a_runs_report_may_be_wrong(kind: str, tmp_path: Path, undrawn: None) -> None:
    folder = write_run(tmp_path / "run")
    good = classifier() if kind == "classifier" else distillation()
    path = folder / ("classifier.json" if kind == "classifier" else "distill.json")
    count = 0
    for place, leaf in enumerate(leaves(good)):
        for new in (HOSTILE[place % len(HOSTILE)], HOSTILE[(5 * place + 3) % len(HOSTILE)], ...):
            path.write_text(json.dumps(changed(good, leaf, new)))
            count += refused(folder, names=path) != ""
    assert count > 10


def test_every_value_of_settings_and_metrics_may_be_wrong(tmp_path: Path, undrawn: None) -> None:
    """Lines of metrics that are none are left out and told; settings are shown as they are."""
    good: list[Any] = metrics(sets=("a",))
    folder = write_run(tmp_path / "run", records=good)
    for place, leaf in enumerate(leaves(good)):
        records = changed(good, leaf, HOSTILE[place % len(HOSTILE)])
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
        assert refused(folder) == "", leaf
    for place, leaf in enumerate(leaves(config())):
        changed_config = changed(config(), leaf, HOSTILE[place % len(HOSTILE)])
        (folder / "config.yaml").write_text(json.dumps(changed_config))
        refused(folder)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "{",
        '{"kind": "ladder", "rows": [',
        '{"kind": "scaling", "curves": {}}',
        '{"kind": ["ladder"]}',
        '{"kind": "ladder"}',
        "[1, 2]",
        "null",
        '"text"',
        "[" * 100_000,
        '{"benchmarks": 3, "machine_info": {}}',
        '{"config": 1, "model": 2, "split": 3, "results": 4}',
        "\ufeff{}",
        "RIFF\x00\x00",
    ],
)
def test_foreign_files(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAMR_DEBUG", "0")
    path, out = tmp_path / "that.json", tmp_path / "page.html"
    path.write_text(words)
    assert cli.main(["report", str(path), "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert str(path) in told
    assert "FASTAMR_DEBUG" not in told
    assert len(told) < 1000
    assert not out.exists()


def test_what_is_taken_is_told(tmp_path: Path, write: Write) -> None:
    taken = r"name folders of runs of fastamr pretrain, .* JSON of pytest-benchmark"
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (write("a.json", {"kind": "scaling"}), empty, tmp_path / "none"):
        with pytest.raises((ValueError, OSError), match=taken):
            build_report([path])


def test_other_kinds_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    not_utf8, pipe = tmp_path / "a.json", tmp_path / "pipe.json"
    not_utf8.write_bytes(b'{"kind": "\xff"}')
    os.mkfifo(pipe)
    binary = tmp_path / "b.safetensors"
    binary.write_bytes(bytes(range(256)))
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text("a: [")
    empty = write_run(tmp_path / "empty", records=[])
    for path in (not_utf8, pipe, binary, run, empty):
        assert cli.main(["report", str(path), "--out", str(tmp_path / "page.html")]) == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert path.name in told


def test_truncated_files(write: Write, tmp_path: Path, undrawn: None) -> None:
    """Cut anywhere, a result is refused; metrics lose their last line, which may still be written."""
    whole = json.dumps(RESULTS["ladder"])
    path = tmp_path / "cut.json"
    for end in range(0, len(whole), 97):
        path.write_text(whole[:end])
        assert "cut.json" in refused(path)
    folder = write_run(tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(lines[:-20])
    assert refused(folder) == ""


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report"]) == 2
    assert cli.main(["report", str(tmp_path), "--clips", "-1"]) == 1
    assert cli.main(["report", str(tmp_path), "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert "clips is -1, expected 0 or more" in told[1]


def test_runs_that_have_logged_nothing_are_told(tmp_path: Path, undrawn: None) -> None:
    """One that has just begun keeps no other from its page; a classifier of a frozen encoder has no metrics at all."""
    write_run(tmp_path / "runs" / "new", records=metrics()[:1])
    frozen = tmp_path / "runs" / "frozen"
    frozen.mkdir()
    (frozen / "classifier.json").write_text(json.dumps(classifier()))
    write_run(tmp_path / "runs" / "old")
    html = build_report([tmp_path / "runs"], ReportOptions(clips=0))
    assert "has no record of the training yet" in html
    assert all(str(tmp_path / "runs" / name) in html for name in ("new", "frozen", "old"))
