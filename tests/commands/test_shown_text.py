"""Names from files in a terminal, in HTML, in pictures and in JSON, and terminals whose encoding lacks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from fastamr import cli
from fastamr.data import PackedSkeletons, Split
from fastamr.export.predictor import Answer, Choice
from fastamr.skeleton import LAYOUTS
from fastamr.tables import markdown

ROOT = Path(__file__).resolve().parents[2]
NASTY = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script>\nerror: done\r$\\frac{$ \u202eevil"
FORBIDDEN = ("\x1b", "\x07", "\r", "\u202e", "\nerror: done")


def nasty_data() -> PackedSkeletons:
    random = np.random.default_rng(0)
    train = torch.arange(8) < 5
    joints = list(LAYOUTS["sbu15"].joints)
    joints[3] = NASTY
    clips = [random.normal(size=(12, 1, 15, 3)).astype("f4") for _ in range(8)]
    clips[7] = clips[0]  # a leak, so that names of clips are shown
    return PackedSkeletons.from_clips(
        clips, layout=replace(LAYOUTS["sbu15"], name=f"mine{NASTY}", joints=tuple(joints)),
        labels=[place % 2 for place in range(8)], label_names=[NASTY, "Händeschütteln 抱擁"],
        names=[f"clip{place} {NASTY}" for place in range(8)], splits={f"official{NASTY}": Split(train, ~train)},
        columns={"subject": np.array([NASTY, "b"] * 4)},
    )  # fmt: skip


def clean(text: str) -> str:
    for sign in FORBIDDEN:
        assert sign not in text, sign
    return text


def test_terminal_html_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = nasty_data()
    path = tmp_path / "a.safetensors"
    data.save(path)
    page = tmp_path / "a.html"
    assert cli.main(["check", str(path), "--html", str(page), "--json", str(tmp_path / "a.json")]) == 0
    told = clean(capsys.readouterr().out)
    assert r"\x1b]0;owned\x07" in told
    html = clean(page.read_text(encoding="utf-8"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    report = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.dumps(NASTY)[1:-1] in report
    clean(str(data.summary()))


def test_answers_tables_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(f"clip{NASTY}", 0, 5, None, None, (Choice(0, NASTY, 0.5),), body=NASTY)
    assert "\n" not in clean(str(answer))
    assert json.loads(json.dumps(answer.to_dict()))["top"][0]["class"] == NASTY
    table = clean(markdown([["name", "x"], [NASTY, "1"]]))
    assert "<script" not in table
    assert len(table.splitlines()) == 3
    strange = tmp_path / "a\x1b[31m\n.csv"
    strange.write_text("frame,x\n1,z\n")
    assert cli.main(["import", str(strange), str(tmp_path / "o.safetensors")]) == 1
    told = clean(capsys.readouterr().err)
    assert told.count("\n") == 1
    assert cli.main(["import", str(strange), "--kind", "\x1b[2J"]) == 2
    clean(capsys.readouterr().err)


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastamr.visualization.confusion import draw_confusion
    from fastamr.visualization.layout_picture import draw_layout

    data = nasty_data()
    counts = np.array([[3, 1], [0, 2]])
    for ending in ("svg", "png"):
        draw_confusion(tmp_path / f"a.{ending}", counts, list(data.label_names), title=NASTY)
        draw_layout(tmp_path / f"b.{ending}", data.layout)
    for name in ("a.svg", "b.svg"):
        text = clean((tmp_path / name).read_text(encoding="utf-8"))
        root = ElementTree.fromstring(text)
        assert not [item for item in root.iter() if str(item.tag).endswith("script")]


@pytest.mark.slow
def test_an_ascii_terminal(tmp_path: Path) -> None:
    path = tmp_path / "dätä.safetensors"
    nasty_data().save(path)
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("PYTHONIOENCODING", None)

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "fastamr", *words]
        result = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout.decode("ascii")

    assert r"H\xe4ndesch\xfctteln \u62b1\u64c1" in run(
        "check", path.name, "--html", "h.html", "--json", "ä.json"
    )
    assert "Händeschütteln" in (tmp_path / "h.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "ä.json").read_text(encoding="utf-8"))
    run("import", path.name, "ö.safetensors")
    assert PackedSkeletons.load(tmp_path / "ö.safetensors").label_names[1] == "Händeschütteln 抱擁"
