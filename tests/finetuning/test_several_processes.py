"""Several processes fine-tune and distil as one does: the same losses, accuracy and weights, and one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fastamr.cli import main
from fastamr.distributed import draw_rows, rows_of_batch, spread_over
from fastamr.models import build_model

ROOT = Path(__file__).resolve().parents[2]
RECIPE = {"epochs": 3, "batch_size": 7, "lr": 2e-3, "min_frames": 4, "dropout": 0.2, "drop_path": 0.2}


@pytest.fixture
def run(tmp_path: Path, make_data: Any) -> Path:
    data = make_data(clips=30, lengths=(5, 9, 12))
    data.save(tmp_path / "data.safetensors")
    torch.manual_seed(0)
    model = build_model(
        "amr", layout=data.layout, frames=8, width=16, depth=2, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"steps": ["center"]}))
    return tmp_path


def launch(count: int, words: list[str], fails: bool = False) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", "fastamr"]
    found = subprocess.run(
        [*command, *words], cwd=ROOT, text=True, capture_output=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (found.returncode != 0) == fails, found.stderr
    return found.stdout + found.stderr


def words_of(command: str, folder: Path, out: str, **recipe: Any) -> list[str]:
    source = "--checkpoint" if command == "finetune" else "--teacher"
    words = [
        command,
        source,
        str(folder / "run"),
        "--data",
        str(folder / "data.safetensors"),
        "--device",
        "cpu",
    ]
    words += ["--out", str(folder / out), "--checkpoint-every", "1"]
    words += [f"--recipe.{name.replace('_', '-')}={value}" for name, value in (RECIPE | recipe).items()]
    if command == "finetune":
        return [*words, "--no-frozen"]
    return [*words, "--no-latency", "--student.width", "8", "--student.depth", "1", "--student.heads", "2"]


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def check_alike(one: Path, other: Path) -> None:
    assert losses(other) == pytest.approx(losses(one), rel=1e-3)
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    # Biases before a BatchNorm, or of keys, have gradient 0 and follow rounding alone.
    found, wanted = (
        torch.cat([each[name].flatten() for name, value in first.items() if value.ndim > 1])
        for each in (second, first)
    )
    assert (found - wanted).norm() < 5e-3 * wanted.norm()


def test_the_rows_of_a_process_are_those_that_one_alone_draws() -> None:
    torch.manual_seed(4)
    whole = torch.rand(7, 2)
    found = []
    for first, rows in ((0, 3), (3, 2), (5, 2)):
        torch.manual_seed(4)
        with spread_over(3), rows_of_batch(first, 7):
            found.append(draw_rows(lambda count: torch.rand(count, 2), rows))
    assert torch.equal(torch.cat(found), whole)
    torch.manual_seed(4)
    assert torch.equal(draw_rows(lambda count: torch.rand(count, 2), 7), whole)


def test_two_processes_fine_tune_as_one_and_one_goes_on(run: Path) -> None:
    """With drop-out, drop path and mix-up, and batches of 7 clips that two cannot share evenly."""
    shown = launch(2, words_of("finetune", run, "two", mixup=0.5))
    assert shown.count("the classifier is in") == 1
    assert main(words_of("finetune", run, "one", mixup=0.5)) == 0
    check_alike(run / "one", run / "two")
    reports = [json.loads((run / name / "classifier.json").read_text()) for name in ("one", "two")]
    assert reports[0]["accuracy"] == reports[1]["accuracy"]
    assert [report["processes"] for report in reports] == [1, 2]
    assert not (run / "two" / "state.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"hidden": 16}, {"hidden": 0, "pooling": "regions", "bodies": "ordered"}])
def test_four_processes_fine_tune_as_one(run: Path, more: dict[str, Any]) -> None:
    launch(4, words_of("finetune", run, "four", **more))
    assert main(words_of("finetune", run, "one", **more)) == 0
    check_alike(run / "one", run / "four")


@pytest.mark.slow
def test_another_number_of_processes_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastamr.training.update.step import PretrainStep

    assert main(words_of("finetune", run, "one")) == 0
    step = PretrainStep.__call__

    def until(self: PretrainStep, *inputs: Any) -> Any:
        if self.update == 4:
            raise ValueError("cut short")
        return step(self, *inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainStep, "__call__", until)
        assert main(words_of("finetune", run, "cut")) == 1
    launch(2, [*words_of("finetune", run, "cut"), "--resume"])
    check_alike(run / "one", run / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--label-share", "0.5", "--unlabelled-rest"]])
def test_two_processes_distil_as_one(run: Path, more: list[str]) -> None:
    pytest.importorskip("sklearn")
    launch(2, [*words_of("distill", run, "two", drop_path=0.0), *more])
    assert main([*words_of("distill", run, "one", drop_path=0.0), *more]) == 0
    for kind in ("distilled", "labels"):
        check_alike(run / "one" / "students" / f"{kind}-0", run / "two" / "students" / f"{kind}-0")
    results = [json.loads((run / name / "distill.json").read_text())["results"] for name in ("one", "two")]
    assert results[0]["teacher"] == results[1]["teacher"]


@pytest.mark.slow
def test_batches_too_small_for_the_processes_are_refused(run: Path) -> None:
    shown = launch(2, words_of("finetune", run, "two", batch_size=1, hidden=0), fails=True)
    assert "batch_size gives batches of 1 clips, too few for 2 processes" in shown
