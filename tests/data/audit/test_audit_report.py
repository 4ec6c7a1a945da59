"""`fastamr check`: table, JSON, page, findings and exit status."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr import cli
from fastamr.data import PackedSkeletons, Split, synthetic_actions
from fastamr.data.audit import KINDS, audit, format_audit, format_page


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in which 2 of 6 test clips are copies; class c is tested, but not trained; one clip is unlabelled."""
    made = synthetic_actions(16, seed=2, frames=(20, 40), noise=0.0)
    offsets, owners = made.offsets.tolist(), made.body_clip.tolist()
    first = [b for b in range(made.num_bodies) if b == 0 or owners[b] != owners[b - 1]]
    clips = [made.coords[offsets[b] : offsets[b + 1]].numpy()[:, None] for b in first][:12]
    clips[10], clips[11] = clips[0], clips[1]
    clips[2][4] = clips[2][3]
    train = torch.arange(12) < 6
    data = PackedSkeletons.from_clips(
        clips,
        layout="ntu25",
        labels=[0, 1, 0, 1, 0, -1, 2, 1, 0, 1, 0, 1],
        label_names=["a<b", "b", "c"],
        names=[f"clip<{k}>" for k in range(12)],
        columns={"subject": np.array(["ann", "bob"] * 6), "take": np.arange(12) * 50},
        splits={"official": Split(train, ~train)},
    )
    path = tmp_path_factory.mktemp("check") / "leaky.safetensors"
    data.save(path)
    return path


def test_findings_and_table(leaky: Path) -> None:
    report = audit(PackedSkeletons.load(leaky))
    kinds = {finding["kind"] for finding in report["findings"]}
    assert {"leak", "duplicates", "repeated", "classes", "unlabelled"} <= kinds <= set(KINDS)
    assert report["findings"][0] == {
        "kind": "leak",
        "text": "split 'official': 2 of 6 test clips (33.3 %) are exact copies of training clips",
    }
    text = format_audit(report, "leaky")
    for line in (
        r"official\s+6\s+2 \(33\.3 %\)\s+0 \(0\.0 %\)",
        r"a<b\s+5\s+3 / 2",
        r"ann\s+6\s+3 / 3",
        r"repeated frames\s+1\s+1\s+clip<2> \(1\)",
        r"split 'official' tests classes that it does not train: c",
        r"subject 2 of 2",
        r"\(unlabelled\)\s+1",
    ):
        assert re.search(line, text), line


def test_counts_add_up(leaky: Path) -> None:
    counts = audit(PackedSkeletons.load(leaky), search_near=False)["counts"]
    assert sum(row["clips"] for row in counts["classes"]) + counts["unlabelled"] == 12
    assert sum(row["clips"] for row in counts["columns"]["subject"]) == 12
    assert sum(counts["lengths"]["histogram"]["counts"]) == 12
    assert [row["splits"]["official"] for row in counts["columns"]["subject"]] == [[3, 3], [3, 3]]


def test_columns_that_name_clips_are_not_listed() -> None:
    data = synthetic_actions(80, seed=0, frames=(10, 12))
    data.columns["file"] = torch.arange(80)
    counts = audit(data, search_near=False)["counts"]
    assert counts["columns_of_many_values"] == {"file": 80}
    assert "file" not in counts["columns"]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing(leaky: Path) -> None:
    text = format_page(audit(PackedSkeletons.load(leaky)), "leaky <file>")
    page = _Page()
    page.feed(text)
    assert page.open == []
    names = [tag for tag, _ in page.tags]
    bars = [attributes for _, attributes in page.tags if attributes.get("style", "").startswith("width: ")]
    # Three classes and the unlabelled clip, two subjects, and the lengths.
    assert len(bars) >= 7
    assert all(0 <= float(one["style"][7:-1]) <= 100 for one in bars)
    assert not {"script", "link", "img", "iframe", "object"} & set(names)
    assert not any(
        name in ("src", "href", "xlink:href") for _, attributes in page.tags for name in attributes
    )
    assert "url(" not in text
    assert "@import" not in text
    for word in ("leaky &lt;file&gt;", "a&lt;b", "clip&lt;10&gt;", "33.3 %", "frames of a clip"):
        assert word in text, word
    assert "a<b" not in text


def test_command_writes_json_and_page(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = tmp_path / "audit.json", tmp_path / "audit.html"
    assert cli.main(["check", str(leaky), "--json", str(out), "--html", str(page)]) == 0
    report = json.loads(out.read_text())
    assert report["file"] == str(leaky)
    assert report["duplicates"]["splits"]["official"]["exact_copies_of_training"] == 2
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "findings" in capsys.readouterr().out
    assert cli.main(["check", str(leaky), "--json", "-", "--no-near"]) == 0
    assert json.loads(capsys.readouterr().out)["duplicates"]["near"]["searched"] is False


def test_missing_folders_are_made_when_there_is_something_to_write(leaky: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "new" / "er" / "report.json", tmp_path / "other" / "page.html"
    asked = ["--no-near", "--json", str(out), "--html", str(page)]
    assert cli.main(["check", str(tmp_path / "none.safetensors"), *asked]) == 1
    assert not (tmp_path / "new").exists()
    assert not page.parent.exists()
    assert cli.main(["check", str(leaky), *asked]) == 0
    assert json.loads(out.read_text())["file"] == str(leaky)
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("kinds", "status"), [([], 0), (["leak"], 3), (["nan"], 0), (["nan", "classes"], 3), (["any"], 3)]
)
def test_exit_status(leaky: Path, kinds: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--fail-on", *kinds] if kinds else []
    assert cli.main(["check", str(leaky), "--no-near", *asked]) == status
    assert ("--fail-on names" in capsys.readouterr().err) == (status == 3)


def test_wrong_use_is_told_in_one_line(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "nowhere.safetensors"]) == 1
    assert cli.main(["check", str(leaky), "--html", str(leaky / "page.html")]) == 1
    assert cli.main(["check", str(leaky), "--residual", "2"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    assert cli.main(["check", str(leaky), "--fail-on", "leeks"]) == 2
