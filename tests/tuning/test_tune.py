"""``fastamr tune`` from end to end, with back ends that hang, crash, are wrong, or are right and slow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import ops
from fastamr.benchmarking.step import FastStep, build_fast_step
from fastamr.cli import main
from fastamr.commands import tune as command
from fastamr.info import report
from fastamr.ops.common import backends, tuned
from fastamr.ops.common.backends import Problem, backend, choose, explain, reference_only
from fastamr.ops.common.record import Measured, Record, ShapeClass, Tried, machine_key, read_record
from fastamr.training import PretrainConfig, pretrain
from fastamr.tuning import TuneOptions, tune

from .planted import BAD, plant

WORKER = (sys.executable, str(Path(__file__).with_name("planted.py")))
ENDS = {"hangs": "killed after 3 s", "aborts": "SIGABRT", "segfaults": "SIGSEGV", "wrong": "off by 0.001"}


@pytest.fixture(scope="module")
def planted() -> Iterator[None]:
    """The planted back ends in this process too."""
    names, row_norm = backends.NAMES, backends._TABLE["row_norm"]
    plant()
    yield
    backends.NAMES = names
    backends._TABLE["row_norm"] = row_norm


@pytest.fixture(scope="module")
def found(planted: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record that ``fastamr tune`` writes, of one op, with the planted worker."""
    path = tmp_path_factory.mktemp("tune") / "record.json"
    with pytest.MonkeyPatch.context() as patch:
        calls = FastStep.calls
        patch.setattr(FastStep, "calls", lambda step: [call for call in calls(step) if call[0] == "row_norm"])
        patch.setattr(command, "tune", partial(tune, worker=WORKER))
        words = ["--preset", "compact", "--batch-size", "2", "--quick", "--limit", "3", "--out", str(path)]
        assert main(["tune", "--device", "cpu", *words]) == 0
    return path


@pytest.fixture
def in_use(found: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The record as ``auto`` reads it, and its text."""
    monkeypatch.setenv("FASTAMR_TUNING", str(found))
    tuned.forget()
    yield json.loads(found.read_text(encoding="utf-8"))
    tuned.forget()


def problem(each: dict[str, Any], factor: int = 1) -> Problem:
    return Problem("cpu", torch.float32, sizes={**each["sizes"], "rows": each["sizes"]["rows"] * factor})


@pytest.mark.slow
def test_bad_back_ends_are_named_and_never_taken(in_use: dict[str, Any]) -> None:
    assert len(in_use["classes"]) == 2  # the encoder's rows and the decoder's
    for each in in_use["classes"]:
        tried = each["tried"]
        for name in BAD:
            assert "failed" in tried[name]
            assert "ms" not in tried[name]
        assert tried["slow"]["ms"] > 20 > tried[each["backend"]]["ms"]
        assert "failed" not in tried["reference"]
        assert choose("row_norm", problem(each)) == each["backend"] not in (*BAD, "slow")
        # Where nothing was measured, what failed elsewhere is passed over all the same.
        assert choose("row_norm", problem(each, 100)) == "slow"
        assert explain("row_norm", problem(each)).source == "measured"
        assert explain("row_norm", problem(each, 100)).source == "built in"
    for name, words in ENDS.items():
        assert words in in_use["classes"][0]["tried"][name]["failed"]


@pytest.mark.slow
def test_info_says_what_failed(in_use: dict[str, Any]) -> None:
    text = report()
    for name, words in ENDS.items():
        (line,) = [line for line in text.splitlines() if f"never taken by auto: {name} of row_norm" in line]
        assert words in line
    assert in_use["digest"] in text


@pytest.mark.slow
def test_what_a_person_names_outranks_the_record(in_use: dict[str, Any]) -> None:
    each = problem(in_use["classes"][0])
    with backend(row_norm="wrong"):
        assert choose("row_norm", each) == "wrong"
        assert explain("row_norm", each).source == "named"
        with reference_only():
            assert choose("row_norm", each) == "reference"
    assert choose("row_norm", each, "slow") == "slow"


@pytest.mark.slow
def test_off_and_explanation(found: Path, in_use: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    failing = explain("row_norm", problem(in_use["classes"][0], 100)).faster
    assert all("failed its check by fastamr tune" in failing[name] for name in BAD)
    monkeypatch.setenv("FASTAMR_TUNING", "off")
    tuned.forget()
    assert choose("row_norm", problem(in_use["classes"][0])) == "hangs"


@pytest.mark.slow
def test_run_measures_first_and_keeps_the_records_digest(
    planted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``pretrain --tune`` writes a record into the cache; its digest is in the run; resuming without it is said."""
    module = sys.modules["fastamr.training.pretrain"]
    calls = module.calls_of
    monkeypatch.setattr(module, "calls_of", lambda step: [c for c in calls(step) if c[0] == "row_norm"][:1])
    monkeypatch.setattr(
        module, "tune", partial(tune, worker=WORKER, options=TuneOptions(quick=True, limit=3))
    )
    monkeypatch.delenv("FASTAMR_TUNING")
    monkeypatch.setenv("FASTAMR_CACHE", str(tmp_path / "cache"))
    small = {"width": 32, "depth": 1, "decoder_width": 32, "decoder_depth": 1, "heads": 2, "decoder_heads": 2}
    settings = PretrainConfig(
        data=["synthetic"], out=str(tmp_path / "run"), updates=4, batch_size=2, tune=True, device="cpu",
        architecture={**small, "frames": 24}, tensorboard=False, progress=False, train_on="all",
    )  # fmt: skip
    tuned.forget()
    try:
        pretrain(settings)
        (path,) = (tmp_path / "cache").glob("tuning-cpu-*.json")
        record = read_record(path)
        header = json.loads((tmp_path / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
        assert header["speed"]["tuning"] == record.digest
        assert PretrainConfig.load(tmp_path / "run/config.yaml").tune is False
        chosen = [each for each in header["speed"]["ops"] if each["op"] == "row_norm"]
        assert any(each["source"] == "measured" for each in chosen)
        assert not {each["backend"] for each in chosen} & set(BAD)

        monkeypatch.setenv("FASTAMR_TUNING", "off")
        monkeypatch.setitem(backends._TABLE, "row_norm", {
            name: each for name, each in backends._TABLE["row_norm"].items() if name not in BAD})  # fmt: skip
        tuned.forget()
        settings.tune, settings.resume, settings.updates = False, True, 5
        capsys.readouterr()
        pretrain(settings)
        said = " ".join(capsys.readouterr().err.split())
        assert f"record of fastamr tune was {record.digest} and is now none" in said

        settings.tune, settings.updates = True, 6
        with pytest.raises(ValueError, match="FASTAMR_TUNING=off fixes the choices"):
            pretrain(settings)
    finally:
        tuned.forget()


def weights_after_three_updates(record: Record) -> tuple[list[torch.Tensor], list[str]]:
    """What a small step makes of a seed with a record, and who chose which back end for its norms."""
    small = {"width": 32, "depth": 2, "decoder_width": 32, "decoder_depth": 1, "heads": 2, "decoder_heads": 2}
    with tuned.using("cpu", record):
        step = build_fast_step("amr", {**small, "frames": 24}, torch.device("cpu"), sequences=2)
        for _ in range(3):
            step()
        choices = [explain(*call) for call in step.calls()]
    return (
        [each.detach().clone() for each in step.model.parameters()],
        [f"{each.source} {each.backend}" for each in choices if each.op == "row_norm"],
    )


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_same_record_same_bits(name: str) -> None:
    """The record, not the built-in list, says which back end runs, and with it the bits are the same again."""
    rows = ShapeClass("row_norm", "float32", (), (("rows", 30), ("width", 32)))
    record = Record(machine_key("cpu"), (Measured(rows, name, {name: Tried(ms=1.0)}),))
    first, chosen = weights_after_three_updates(record)
    second, again = weights_after_three_updates(record)
    assert f"measured {name}" in chosen
    assert chosen == again
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.slow
def test_a_record_is_read_while_a_call_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first choice of a process may be inside ``torch.compile``, where no file can be read by what is traced."""
    shape = ShapeClass("motion_entropy", "float32", (), (("sequences", 2), ("frames", 8), ("joints", 3)))
    failed = {"triton": Tried(failed="crashed"), "reference": Tried(ms=1.0)}
    Record(machine_key("cpu"), (Measured(shape, "reference", failed),)).save(tmp_path / "record.json")
    monkeypatch.setenv("FASTAMR_TUNING", str(tmp_path / "record.json"))
    clips = torch.randn(2, 8, 3, 3)
    compiled = torch.compile(
        lambda given: ops.motion_entropy(given, window=4)[0], fullgraph=True, backend="eager"
    )
    tuned.forget()
    try:
        assert torch.equal(compiled(clips), ops.motion_entropy(clips, window=4)[0])
        assert tuned.tuning("cpu").record is not None
    finally:
        tuned.forget()
