"""The shared cases of sets used together and of units: each command as its README has it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastamr.cli import main
from fastamr.data import PackedSkeletons, concatenate, synthetic_actions

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
TINY = (
    "--model.frames 16 --model.width 32 --model.depth 1 --model.heads 2 --model.decoder-width 32 "
    "--model.decoder-depth 1 --model.decoder-heads 2 --model.target-patches 2 --model.guidance-windows 2 4 "
    "--min-frames 8 --updates 1 --batch-size 4 --no-progress --overwrite"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"the shared cases are not in {CASES}"),
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(words: str) -> None:
    assert main(words.split()) == 0


def pretrained(data: str) -> dict[str, Any]:
    run(f"pretrain --data {data} --out run {TINY}")
    return json.loads(Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])


def test_06_set_without_split_unused() -> None:
    assert (CASES / "06_set_without_split_unused").is_dir()
    synthetic_actions(20, seed=1).save("with_split.safetensors")
    dataclasses.replace(synthetic_actions(20, seed=2), splits={}).save("own.safetensors")
    found = [pretrained(data)["sequences"] for data in ("with_split.safetensors", "own.safetensors")]
    assert pretrained("with_split.safetensors own.safetensors")["sequences"] == sum(found) == 39


def test_07_set_without_label_names() -> None:
    assert (CASES / "07_set_without_label_names").is_dir()
    named, numbered = synthetic_actions(20, seed=1), synthetic_actions(20, seed=2)
    with pytest.raises(ValueError, match="--label-numbers"):
        concatenate([named, dataclasses.replace(numbered, label_names=())])
    both = concatenate([named, dataclasses.replace(numbered, label_names=())], unnamed="numbers")
    assert both.labels[20:].tolist() == numbered.labels.tolist()


def test_13_units_mm(capsys: pytest.CaptureFixture[str]) -> None:
    for unit in ("m", "mm"):
        shutil.copy(CASES / "13_units_mm" / f"clip_{unit}.csv", f"{unit}.csv")
        run(f"import {unit}.csv {unit}.safetensors")
    capsys.readouterr()
    for unit, is_said in (("m", False), ("mm", True)):
        run(f"check {unit}.safetensors")
        assert ("scale:factor=0.001" in capsys.readouterr().out) == is_said
    synthetic_actions(40, seed=1).save("train.safetensors")
    pretrained("train.safetensors")
    run("finetune --checkpoint run --data train.safetensors --out classifier --frozen")
    run("convert train.safetensors large.safetensors --preprocess scale:factor=1000")
    capsys.readouterr()
    for command in (
        "predict large.safetensors --model classifier",
        "evaluate --checkpoint run --data large.safetensors --protocol knn",
        "finetune --checkpoint run --data large.safetensors --out again --frozen",
        f"pretrain --data large.safetensors --out run {TINY}",
    ):
        run(command)
        assert re.search(r"^warning: .*scale:factor=0\.001", capsys.readouterr().err, re.MULTILINE), command


def test_27_own_data_without_split(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the way on."""
    shutil.copy(CASES / "27_own_data_without_split" / "two_clips.csv", "two_clips.csv")
    run("import two_clips.csv own.safetensors")
    data = dataclasses.replace(PackedSkeletons.load("own.safetensors"), splits={})
    data.save("bare.safetensors")
    pretrained("bare.safetensors")
    capsys.readouterr()
    for command in ("evaluate", "finetune --out classifier"):
        assert main(f"{command} --checkpoint run --data bare.safetensors".split()) == 1
        assert "fastamr split DATA" in capsys.readouterr().err
