"""Several processes that share an evaluation give the result of one, and one folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fastamr.cli import main
from fastamr.distributed import World
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.models import build_model

from .evaluating import JOBS, evaluate_all
from .protocols.test_detection import make_streams

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"frames": 8, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1}
SMALL |= {"decoder_heads": 2, "target_patches": 1}


@pytest.fixture
def folder(tmp_path: Path, make_data: Any) -> Path:
    """Data, streams, and the same two models in the folders of one process and of several."""
    make_data(clips=9).save(tmp_path / "data.safetensors")
    make_streams().save(tmp_path / "streams.safetensors")
    for number, name in enumerate(["one", "one-second"]):
        torch.manual_seed(10 + number)
        model = build_model("amr", layout=make_data(clips=1).layout, **SMALL)
        model.save_pretrained(tmp_path / name)
        shutil.copytree(tmp_path / name, tmp_path / name.replace("one", "run"))
    return tmp_path


def launch(count: int, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", *words], cwd=ROOT,
        text=True, capture_output=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def without_paths(report: dict[str, Any]) -> dict[str, Any]:
    """A report without the names of folders and files, which differ."""
    config = {k: v for k, v in report["config"].items() if k not in ("checkpoint", "out", "fuse")}
    rest = {k: v for k, v in report.items() if k not in ("command", "pretraining", "warnings")}
    streams = [{k: v for k, v in each.items() if k != "checkpoint"} for each in report.get("streams", [])]
    return json.loads(json.dumps({**rest, "config": config, "streams": streams}))


def features_of(run: Path) -> dict[str, torch.Tensor]:
    return {path.name: load_file(path)["features"] for path in (run / "features").glob("*.safetensors")}


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (2, 3), (7, 3), (8, 4), (5, 1)])
def test_every_batch_has_one_process(count: int, size: int) -> None:
    shares = [World(rank, size).share(count) for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_protocol_that_trains_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, folder: Path
) -> None:
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    words = ["evaluate", "--checkpoint", str(folder / "run"), "--data", str(folder / "data.safetensors")]
    for more in (["--protocol", "finetune"], ["--protocol", "transfer", "--with-finetune"]):
        assert main([*words, *more]) == 1
        assert "trains the encoder in one process, and torchrun started 2" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_print_and_write_once_what_one_does(folder: Path) -> None:
    data = str(folder / "data.safetensors")
    words = ["--data", data, "--device", "cpu", "--batch-size", "4"]
    shown = launch(2, "fastamr", "evaluate", "--checkpoint", str(folder / "run"), *words)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("written to") == shown.stdout.count("20-NN") == 1
    alone = evaluate(
        EvaluateConfig(checkpoint=str(folder / "one"), data=[data], device="cpu", batch_size=4), quiet=True
    )
    name = "evaluation-data-official-all.json"
    assert without_paths(json.loads((folder / "run" / name).read_text())) == without_paths(alone)
    assert sorted(path.name for path in (folder / "run").iterdir()) == sorted(
        path.name for path in (folder / "one").iterdir()
    )
    one, two = features_of(folder / "one"), features_of(folder / "run")
    assert len(one) == 2
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_every_protocol_is_shared_to_the_bit(folder: Path) -> None:
    """By four processes, more than there are batches, or streams of a half."""
    shown = launch(4, "tests.evaluation.evaluating", str(folder))
    assert shown.returncode == 0, shown.stderr
    alone = evaluate_all(folder, "one")
    for job in JOBS:
        shared = json.loads((folder / "run" / f"{job}.json").read_text())
        assert without_paths(shared) == without_paths(alone[job])
        assert alone[job]["results"]["encoder"]
    one, several = features_of(folder / "one"), features_of(folder / "run")
    assert one.keys() == several.keys()
    assert all(torch.equal(one[key], several[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"), [("error", "error: this batch is broken"), ("killed", "SIGKILL")]
)
def test_a_process_that_dies_ends_the_evaluation(folder: Path, fault: str, words: str) -> None:
    shown = launch(2, "tests.evaluation.evaluating", str(folder), fault)
    assert shown.returncode != 0
    assert words in shown.stderr
    assert not list((folder / "run").glob("evaluation*"))
    assert not list((folder / "run").glob("features/*"))


@pytest.mark.slow
def test_processes_of_other_data_are_refused(folder: Path, make_data: Any) -> None:
    script = folder / "other.py"
    make_data(clips=10).save(folder / "other.safetensors")
    script.write_text(
        "import os, sys\nfrom fastamr.cli import main\n"
        f"name = '{folder}/' + ('data', 'other')[int(os.environ['RANK'])] + '.safetensors'\n"
        f"sys.exit(main(['evaluate', '--checkpoint', '{folder}/run', '--data', name, '--device', 'cpu']))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    shown = subprocess.run(
        command, text=True, capture_output=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert shown.returncode != 0
    assert "process 1 of 2 has another configuration than process 0" in shown.stderr
