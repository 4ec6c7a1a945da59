"""`fastamr report`: one page that loads nothing, says what the files say, and shows every text as text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastamr import cli
from fastamr.report import ReportOptions, build_report
from fastamr.report.charts import MOST_CURVES, draw_curves
from fastamr.report.runs import Curve

from .made import (
    PageReader,
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

Write = Callable[[str, Any], str]
NO_PICTURES = ReportOptions(clips=0)
RESULT = pytest_json(case("test_a", [1e-3, 2e-3]))
NASTY = "\x1b]0;owned\x07<script>alert(1)</script>\"'\nerror: done\r$\\frac{$ \u202eevil \uffff </svg>"
FORBIDDEN = ("\x1b", "\x07", "\r", "\u202e", "\nerror: done", "<script")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of run and result."""
    folder = tmp_path_factory.mktemp("report")
    runs = folder / "runs"

    def write(name: str, values: Any) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(values))

    write_run(runs / "one")
    write_run(runs / "two", config(seed=1, lr=0.002), metrics(loss=2.0))
    write_run(runs / "mixed", config(data=["a", "b"], mixture=0.5), metrics(sets=("a", "b")))
    trained = write_run(runs / "classifier", records=metrics())
    (trained / "config.yaml").unlink()
    (trained / "classifier.json").write_text(json.dumps(classifier()))
    (runs / "student").mkdir()
    (runs / "student" / "distill.json").write_text(json.dumps(distillation()))
    write_run(runs / "student" / "students" / "distilled-0")
    write("runs/one/evaluation-ntu.json", evaluation())
    for place, times in enumerate(([10.0, 11, 12, 10, 11, 12], [20.0, 21, 22, 20, 21, 22]), 1):
        write(
            f"ladder{place}/ladder.json", ladder(rung("a", times), rung("b", None, reason="for a GPU only"))
        )
    write("quick/quick.json", ladder(rung("a", [5.0, 6.0]), kind="quick"))
    write("profile/profile.json", profile())
    write("cases.json", pytest_json(case("test_one", [1e-3, 2e-3, 3e-3])))
    return folder


@pytest.fixture(scope="module")
def html(everything: Path) -> str:
    names = ("runs", "ladder1", "ladder2", "quick", "profile", "cases.json")
    return build_report([everything / name for name in names], NO_PICTURES)


def test_the_page_is_whole_and_loads_nothing(html: str) -> None:
    page = PageReader(html)
    names = {tag for tag, _ in page.tags}
    assert {"svg", "table", "figure", "details", "nav"} <= names
    assert not {"script", "link", "img", "iframe", "object", "style "} & names
    assert 'name="viewport" content="width=device-width' in html
    assert "prefers-color-scheme: dark" in html
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "data", "action")
    ]
    assert targets
    assert all(value is not None and value.startswith("#") and value[1:] in ids for value in targets)
    assert all(url.startswith("#") for url in re.findall(r"url\(\"?([^)]*)", html))
    assert "@import" not in html
    assert "http" not in html
    events = [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert events == []
    # Tables scroll by themselves, so that a phone shows the page at its own width.
    assert html.count("<table>") == html.count('<div class="scroll"')


def test_what_the_runs_say(html: str, everything: Path) -> None:
    page = PageReader(html)
    one, two = (str(everything / "runs" / name) for name in ("one", "two"))
    assert page.row(one)[1:3] == ["pretrain", "unfinished: nothing is saved"]
    assert page.row("lr")[1:] == ["0.001", "0.001", "0.002"]
    settings = [row[0] for row in page.rows if len(row) == 4]
    assert settings.index("seed") < settings.index("model")  # `model` is among all settings only
    assert page.row("AMR")[1:] == ["runs/a", "60.0 ± 2.8", "-", "measured"]
    what = [row for row in page.rows if row[:1] == [str(everything / "runs" / "student")]]
    assert ["teacher", "50.0 ± 14.1", "2", "5,000"] in [row[1:] for row in what]
    assert ["classifier, 10 test clips", "62.5", "1", "1,234"] in [row[1:] for row in page.rows]
    for text in ("loss of each set", "probe of each set", "the features of 'x' have collapsed", "few clips"):
        assert text in page.text, text
    assert two in page.text


def test_losses_of_different_targets_never_share_an_axis(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", config(architecture={"target": "coordinates", "normalize": "none"}))
    write_run(tmp_path / "c", config(model="skeleton_mae"))
    write_run(tmp_path / "d", config(seed=3))
    html = build_report([tmp_path], NO_PICTURES)
    charts = re.findall(
        r"<figcaption>(loss of the pre-training[^<]*)</figcaption>(.*?)</figure>", html, re.DOTALL
    )
    shown = {title: re.findall(r"<span>([^<]*)</span>", inside) for title, inside in charts}
    named = {title: sorted(Path(name).name for name in names) for title, names in shown.items()}
    assert named == {
        "loss of the pre-training: amr, motion, sequence": ["a", "d"],
        "loss of the pre-training: amr, coordinates, none": ["b"],
        "loss of the pre-training: skeleton_mae, motion, sequence": ["c"],
    }


def test_what_the_results_say(html: str) -> None:
    page = PageReader(html)
    assert ["11 ms", "10.2 ms to 11.8 ms", "6"] in [row[1:4] for row in page.rows if row[0] == "rung a"]
    assert ["rung b", "for a GPU only"] in page.rows
    assert ["a", "SkeletonMAE as released", "2.50x (b)"] in page.rows
    assert ["rung a", "400 epochs", "2.0 hours"] in page.rows
    assert page.row("aten::k0")[1:] == ["20.0%", "", "9 ms", "3"]
    assert page.row("test_one")[1:4] == ["2 ms", "1.5 ms to 2.5 ms", "3"]
    assert ["rung a", "SLOWER beyond noise", "1.91x", "11 ms", "21 ms"] in page.rows
    assert "1 slower and 0 faster beyond noise, of 1 in both files." in page.text


def test_every_text_is_shown_as_text(tmp_path: Path, write: Write) -> None:
    """Names of folders, sets, settings, kernels, rungs and classes; in HTML and in drawings."""
    folder = tmp_path / ("run<b>\n" + os.fsdecode(b"\xff"))
    write_run(
        folder,
        config(**{NASTY: NASTY, "data": [NASTY], "split": NASTY, "model": NASTY}),
        [*metrics(sets=(NASTY,))[:-1], {"kind": "warning", "update": NASTY, "message": NASTY}],
    )
    rows = [rung(NASTY, [1.0, 2.0], title=NASTY, model=NASTY), rung("b", None, title=NASTY, reason=NASTY)]
    surrogate = rung("c", [1.0], title="half \ud800")
    environment = {"device_name": NASTY, "date": NASTY, "torch": NASTY}
    kernels = [{"name": NASTY, "calls": 1, "ms": 1.0, "share": 1.0}]
    report = evaluation(model={"name": NASTY}, split={"name": NASTY}, versions={NASTY: NASTY})
    paths = [
        folder,
        write("l.json", ladder(*rows, surrogate, environment=environment, architecture={NASTY: NASTY})),
        write("l2.json", ladder(*rows, environment={"device_name": "other" + NASTY})),
        write("p.json", profile(what=NASTY, kernels=kernels, launches={NASTY: 1.0})),
        write("b.json", pytest_json(case(NASTY, [1e-3, 2e-3]))),
        write("e.json", report),
    ]
    html = build_report(paths, ReportOptions(title=NASTY, clips=0))
    PageReader(html)
    for sign in FORBIDDEN:
        assert sign not in html, sign
    assert html.encode("utf-8")
    for words in (r"\x1b]0;owned\x07&lt;script&gt;", r"run&lt;b&gt;\x0a\udcff", r"half \ud800"):
        assert words in html, words


def test_long_curves_keep_their_peaks_and_broken_values_are_told() -> None:
    values = [1.0] * 20_000
    values[12_345], values[77], values[78] = 9.0, float("nan"), 1e35
    chart = draw_curves("t", [Curve("loss", list(map(float, range(20_000))), values)], ["run"], "loss")
    assert chart.note == "2 values that are not finite are not drawn"
    assert len(chart.svg) < 40_000
    axis = [float(text) for text in re.findall(r">(\d+(?:\.\d+)?)</text>", chart.svg)]
    assert 9.0 in axis
    many = [Curve("loss", [0.0, 1.0], [1.0, 2.0])] * (MOST_CURVES + 3)
    assert draw_curves("t", many, ["x"] * len(many), "loss").note == "3 more are not drawn"


def test_the_command(tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    out, cases = tmp_path / "new" / "page.html", write("results/cases.json", RESULT)
    assert cli.main(["report", cases, "--out", str(out), "--title", "Two & <three>"]) == 0
    assert capsys.readouterr().out == f"written to {out}\n"
    html = out.read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>")
    assert "<h1>Two &amp; &lt;three&gt;</h1>" in html


def test_what_is_read_is_not_replaced(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page among the results may be written anew."""
    ladders = Path(write("results/ladder.json", ladder(rung("a", None)))).parent
    for _ in range(2):
        assert cli.main(["report", str(ladders), "--out", str(ladders / "page.html")]) == 0
    for out in (ladders / "ladder.json", tmp_path / "linked.html"):
        if not out.exists():
            out.symlink_to(ladders / "ladder.json")
        before = out.read_text()
        assert cli.main(["report", str(ladders), str(ladders / "ladder.json"), "--out", str(out)]) == 1
        assert out.read_text() == before
        assert "would be replaced" in capsys.readouterr().err
