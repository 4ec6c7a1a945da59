"""What commit 3da80ac saved, before the package was rearranged, still means the same.

``tests/fixtures/saved_run/make.py`` wrote the files with that commit's package. Where the processor and torch are those
of ``machine.json``, all is compared bit for bit. Elsewhere sums round differently: losses may then differ by 1e-4
(bfloat16: 1e-2) and features by 1e-3 of their size (bfloat16: 5e-2, ASMa 5e-3); accuracies are the same values
everywhere. The slow variant writes the files anew on this machine, with the ops that it would choose by itself, and
always compares the bits. Methods whose sums have since been rounded otherwise are held to the tolerances everywhere.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import fastamr
from fastamr import PackedSkeletons
from fastamr.cli import main
from fastamr.data import apply_missing
from fastamr.evaluation import extract_features
from fastamr.export import load_predictor
from fastamr.models import load_pretrained
from fastamr.training import PretrainConfig

ROOT = Path(__file__).resolve().parents[2]
SAVED = ROOT / "tests" / "fixtures" / "saved_run"
COMMIT = "3da80acdf222c9f998a682dab3f6a0ef8f425b69"
METHODS = ("amr", "amr_bfloat16", "skeleton_mae", "mamp", "gfp", "asma")
ROUNDED_OTHERWISE = {
    # The reconstruction loss's gradient is a slope times a power of two, which float16 can hold.
    *("amr", "amr_bfloat16", "skeleton_mae", "mamp"),
    # The columns of attention's gradients are added up in one pass, and oneDNN multiplies on some processors.
    "gfp",
    # An encoder's streams go through its projector together, and a weight's gradient is one sum over their rows.
    "asma",
}


@pytest.fixture(scope="module", params=["kept", pytest.param("made", marks=pytest.mark.slow)])
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files, and the back ends that they were made with."""
    folder = SAVED
    if request.param == "made":
        folder = make_with_old_package(tmp_path_factory.mktemp("before"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with fastamr.backend(read(folder / "machine.json")["backend"]):
        yield folder
    torch.set_num_threads(threads)


def make_with_old_package(folder: Path) -> Path:
    """Run the script with the package of the commit, which must be in the checkout's history."""
    found = subprocess.run(["git", "-C", ROOT, "archive", COMMIT], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"the checkout's history lacks commit {COMMIT[:7]}: git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder / "package", filter="data")
    command = [sys.executable, SAVED / "make.py", folder / "saved", "--backend", "auto"]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(folder / "package")}, check=True)
    return folder / "saved"


@pytest.fixture
def saved(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files in the working folder."""
    copy = shutil.copytree(before, tmp_path / "saved")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def exact(before: Path) -> bool:
    """Whether this machine rounds as the one that made the files."""
    here = runpy.run_path(str(SAVED / "make.py"))["machine"]()
    there = read(before / "machine.json")
    return all(there[name] == value for name, value in here.items())


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]


def features(run: Path) -> torch.Tensor:
    data = PackedSkeletons.load("motion.safetensors")
    steps = PretrainConfig.load(run / "config.yaml").preprocess
    return extract_features(load_pretrained(run), apply_missing(data, steps))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:update .* collapsed:RuntimeWarning")
def test_a_stopped_run_goes_on_as_it_would_have(method: str, saved: Path, exact: bool) -> None:
    run, ended = Path("stopped", method), Path("ended", method)
    assert main(["pretrain", "--out", str(run), "--resume"]) == 0
    expected = read(saved / "losses.json")[method]
    if exact and method not in ROUNDED_OTHERWISE:
        assert losses(run) == expected
        weights, there = load_file(run / "model.safetensors"), load_file(ended / "model.safetensors")
        assert list(weights) == list(there)
        assert [name for name in there if not torch.equal(weights[name], there[name])] == []
    else:
        assert losses(run) == pytest.approx(expected, rel=1e-2 if "bfloat16" in method else 1e-4)
        truth = features(ended)
        limit = {"amr_bfloat16": 5e-2, "asma": 5e-3}.get(method, 1e-3) * truth.norm()
        assert (features(run) - truth).norm() < limit


@pytest.mark.parametrize("protocol", ["all", "retrieval"])
def test_a_run_evaluates_to_the_same_numbers(protocol: str, saved: Path) -> None:
    options = f"--data motion.safetensors --protocol {protocol} --seeds 0 1 --no-cache --out new.json"
    assert main(["evaluate", "--checkpoint", "ended/amr", *options.split()]) == 0
    then = read(saved / "ended" / "amr" / f"evaluation-motion-official-{protocol}.json")
    now = read(saved / "new.json")
    assert now["results"] == then["results"]
    assert now["data"] == then["data"]
    assert now["split"] == then["split"]


@pytest.mark.parametrize("model", ["classifier", "classifier.onnx"])
def test_a_classifier_predicts_the_same(model: str, saved: Path, exact: bool) -> None:
    if model.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    lines = (saved / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    then = [json.loads(line) for line in lines]
    data = PackedSkeletons.load("motion.safetensors")
    now = [answer.to_dict() for answer in load_predictor(model).predict(data, top=3)]
    if exact and model == "classifier":
        assert now == then
    for new, old in zip(now, then, strict=True):
        chances = [
            (one.pop("probability"), two.pop("probability"))
            for one, two in zip(new["top"], old["top"], strict=True)
        ]
        assert new == old
        assert all(one == pytest.approx(two, abs=1e-5) for one, two in chances)


def test_results_make_a_table_and_metrics_curves(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "ended", "--format", "csv"]) == 0
    results = read(saved / "ended" / "amr" / "evaluation-motion-official-all.json")["results"]
    table = capsys.readouterr().out
    assert [
        name for name, score in results["encoder"].items() if f",{name},{score['accuracy']}," not in table
    ] == []
    pytest.importorskip("matplotlib")
    assert main(["plot", "stopped/amr", "--out", "figures"]) == 0
    assert list(Path("figures").glob("*.png"))


def test_its_configuration_starts_a_new_run(saved: Path) -> None:
    command = "pretrain --config stopped/amr/config.yaml --out again --updates 3 --no-progress"
    assert main(command.split()) == 0
    assert losses(Path("again"))[0] == pytest.approx(read(saved / "losses.json")["amr"][0], rel=1e-4)
