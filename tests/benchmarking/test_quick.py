from __future__ import annotations

import itertools
import json
import re
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import cli
from fastamr.benchmarking import RUNGS
from fastamr.benchmarking.ntu_sized import PRESETS
from fastamr.benchmarking.quick import QuickOptions, as_text, projections, run_quick, turns
from fastamr.benchmarking.rungs import Ladder, Row

CPU = torch.device("cpu")
FACTS = {"device_name": "a machine", "date": "2026-11-30", "torch": "2.13", "device": "cpu"}


def made(**times: float | None) -> Ladder:
    rungs = {rung.name.replace("-", "_"): rung for rung in RUNGS}
    rows = []
    for name, ms in times.items():
        rung = rungs[name]
        rows.append(Row(rung.name, rung.heading(CPU), rung.model, rung.fast, rung.is_released, ms=ms))
    return Ladder(FACTS, 8, [8, 120, 25, 3], {}, rows)


@pytest.fixture
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_MOST_TURNS", 3)


def test_command_end_to_end(
    tmp_path: Path,
    architecture: list[str],
    capsys: pytest.CaptureFixture[str],
    every_16_bit_product: None,
    few_turns: None,
) -> None:
    out = tmp_path / "quick"
    given = ["--device", "cpu", "--out", str(out), "--sequences", "2", "--seconds", "60", *architecture]
    assert cli.main(["bench", "quick", *given]) == 0
    printed = capsys.readouterr()
    for words in (
        r"fastamr-fp32 against SkeletonMAE as released: [\d.]+x \(mae-fp32\)",
        r"fastamr-fp32 against the strongest PyTorch SkeletonMAE of this run: [\d.]+x \(mae-",
        r"fastamr-bf16 against the best plain-PyTorch AMR of this run: [\d.]+x \(amr-",
        r"AMR against SkeletonMAE, both fast \(fastamr-....?, fastmae-....?\) +[\d.]+x",
        r"PROJECTED, not measured: NTU RGB\+D 60, cross-subject, 400 epochs",
        r"  not the published model: .*width=16",
        r"  SkeletonMAE as released, fp32 \(mae-fp32\): [\d.]+ \w+ \([\d.]+ \w+\)",
    ):
        assert re.search(words, printed.out), words
    assert re.search(
        r"1 of 9, fastamr-fp32: built and checked, at most (60|59)\.\d s left in all", printed.err
    )
    assert "timed in turns: turn 1, at most " in printed.err
    report = json.loads((out / "quick.json").read_text())
    assert report["kind"] == "quick"
    assert (out / "quick.txt").read_text() in printed.out
    rows = {row["name"]: row for row in report["rows"]}
    order = [rung.name for rung in RUNGS if rung.name in rows]
    assert list(rows) == order
    assert len(rows) == 9
    for row in rows.values():
        assert len(row["rounds_ms"]) == 3  # as many turns for all
        assert 0 <= row["error"] <= row["tolerance"]


def test_without_instructions_float32_alone_is_timed(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, few_turns: None
) -> None:
    monkeypatch.setattr("fastamr.devices.processor_features", lambda: {"avx2": True})
    ladder = run_quick(QuickOptions(sequences=2, seconds=30, architecture=tiny), CPU)
    assert {row.name for row in ladder.rows if row.ms is not None} == {
        *("mae-fp32", "mae-sdpa-fp32", "amr-fp32", "fastamr-fp32", "fastmae-fp32")
    }
    reasons = [row.reason or "" for row in ladder.rows if row.ms is None]
    assert len(reasons) == 4
    assert all(reason.startswith("no instructions for bfloat16 products") for reason in reasons)


def test_on_a_slow_machine_the_first_rungs_are_timed_and_the_others_left_out(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, every_16_bit_product: None
) -> None:
    """A clock by which each look at it is four seconds later stands for a machine that takes as long."""
    clock = itertools.count(step=4.0)
    monkeypatch.setattr(turns, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setattr(turns, "measure", lambda step, device, rounds: [4.0] * rounds)
    ladder = run_quick(QuickOptions(sequences=2, seconds=100, architecture=tiny), CPU)
    timed = {row.name for row in ladder.rows if row.ms is not None}
    assert {"fastamr-fp32", "amr-fp32", "mae-fp32"} <= timed
    left_out = [row for row in ladder.rows if row.ms is None]
    assert left_out
    assert {row.reason for row in left_out} == {
        "left out: it would not fit into 100 s here (--seconds allows more)"
    }
    assert next(clock) * 1.0 < 200  # neither did it go on for all turns
    assert len(ladder.rows) == 9


@pytest.mark.parametrize(("rate", "count"), [(200e9, 8), (100e9, 4), (50e9, 2), (1e9, 1)])
def test_a_slow_processor_gets_fewer_sequences(
    rate: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its measured products: 6 updates of 125 GFLOPs a sequence, three times as slow, in 100 s."""
    monkeypatch.setattr(turns, "matmul_rate", lambda device, dtype, size: rate)
    assert turns._fitting(125e9, 100.0, CPU) == count


def test_a_wrong_rung_gets_no_time(
    tmp_path: Path,
    architecture: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fastamr.benchmarking import ladder

    exact = ladder.exact_loss
    monkeypatch.setitem(turns._WANTED, "cpu", ("fastamr-fp32", "amr-fp32"))
    monkeypatch.setattr(ladder, "exact_loss", lambda *arguments: 1.001 * exact(*arguments))
    given = ["--device", "cpu", "--out", str(tmp_path), "--sequences", "2", "--seconds", "20", *architecture]
    assert cli.main(["bench", "quick", *given]) == 1
    assert "fastamr-fp32" in capsys.readouterr().err.splitlines()[-1]


def test_projection_by_hand() -> None:
    """400 epochs of 313 updates of 256 sequences; here 8 sequences take a second."""
    found = projections(made(mae_fp32=9000.0, mae_sdpa=5000.0, amr_fp32=2000.0, fastamr_fp32=1000.0))
    assert [each["rung"] for each in found] == ["fastamr-fp32", "amr-fp32", "mae-sdpa", "mae-fp32"]
    assert PRESETS["ntu60-xsub"].updates == 125_200
    assert found[0]["totals"][0]["seconds"] == pytest.approx(125_200 * 32)
    assert found[0]["totals"][1]["seconds"] == pytest.approx(74_123 * 32)
    assert found[3]["totals"][0]["seconds"] == pytest.approx(9 * 125_200 * 32)
    assert all(total["projected"] for each in found for total in each["totals"])
    text = as_text(made(mae_fp32=9000.0, mae_sdpa=5000.0, amr_fp32=2000.0, fastamr_fp32=1000.0))
    assert "  fastamr, fp32 (fastamr-fp32): 46.4 days (27.5 days)" in text
    assert "  SkeletonMAE as released, fp32 (mae-fp32): 417.3 days (247.1 days)" in text
    assert "not the published model" not in text
    assert "PROJECTED" not in as_text(made(mae_fp32=None))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="seconds is 0, expected more than 0"):
        QuickOptions(seconds=0)
    with pytest.raises(ValueError, match="sequences is 0, expected at least 1"):
        QuickOptions(sequences=0)
    with pytest.raises(ValueError, match="dept"):
        QuickOptions(architecture={"dept": 1})
