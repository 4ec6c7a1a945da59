"""Embedding and confusion matrix from saved models: nothing is trained, and what lacks is told."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from fastamr.report import ReportOptions, build_report

from .made import PageReader, metrics

SAVED = Path(__file__).resolve().parents[1] / "fixtures" / "saved_run"


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, a classifier and their data, as an earlier version saved them; the metrics are new."""
    for name in ("ended/amr", "classifier"):
        shutil.copytree(SAVED / name, tmp_path / name)
        lines = [json.dumps(record) + "\n" for record in metrics()]
        (tmp_path / name / "metrics.jsonl").write_text("".join(lines))
    shutil.copy(SAVED / "motion.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def titles(html: str) -> list[str]:
    return re.findall(r"<figcaption>(.*?)</figcaption>", html)


@pytest.mark.slow
def test_embedding_and_confusion(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something is trained")

    monkeypatch.setattr("torch.Tensor.backward", never)
    html = build_report(["ended/amr", "classifier"])
    shown = titles(html)
    assert "features of ended/amr, 36 of 36 clips" in shown
    assert "1-NN of ended/amr, split official" in shown
    page = PageReader(html)
    found = re.search(r"([\d.]+) % of 17 clips right", page.text)
    assert found
    # The evaluation beside the model says the same of the same probe.
    report = json.loads((saved / "ended/amr/evaluation-motion-official-all.json").read_text())
    assert float(found[1]) == pytest.approx(report["results"]["encoder"]["knn_1"]["accuracy"], abs=0.05)
    assert any(
        title.startswith("classifier of classifier, split official, 17 of 17 test clips") for title in shown
    )


def test_few_clips_are_drawn_and_told(saved: Path) -> None:
    html = build_report(["ended/amr"], ReportOptions(clips=12))
    assert "features of ended/amr, 12 of 36 clips" in titles(html)
    assert "1-NN of ended/amr" not in html  # 12 clips are not the split that a probe is of


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "motion.safetensors").unlink(), "its data motion.safetensors is not here"),
        (lambda folder: (folder / "ended/amr/model.safetensors").write_bytes(b"x" * 99), "model.safetensors"),
        (lambda folder: (folder / "motion.safetensors").write_bytes(b"x" * 99), "motion.safetensors"),
    ],
)
def test_what_cannot_be_drawn_is_told(saved: Path, spoil: object, words: str) -> None:
    spoil(saved)  # type: ignore[operator]
    page = PageReader(build_report(["ended/amr"]))
    told = [text for text in page.words if "no picture of what it has learnt" in text]
    assert len(told) == 1
    assert words in told[0]


def test_of_no_clips_nothing_is_loaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastamr.models.load_pretrained", None)
    html = build_report(["ended/amr"], ReportOptions(clips=0))
    assert "What the models have learnt" not in html
