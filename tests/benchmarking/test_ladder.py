from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import cli
from fastamr.benchmarking import RUNGS, charts, ladder, machine
from fastamr.benchmarking.charts import draw_ladder
from fastamr.benchmarking.cost import CONVENTION
from fastamr.benchmarking.ladder import Ladder, Row
from fastamr.benchmarking.ladder_report import (
    as_markdown,
    as_text,
    last_line,
    memory_text,
    ratios,
    to_json,
)
from fastamr.commands.bench.ladder import run as run_command

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FACTS = {"device_name": "a machine", "date": "2026-11-21", "torch": "2.13", "device": "cpu"}


def row(name: str, ms: float | None, *, reason: str | None = None, peak: int | None = None) -> Row:
    rung = next(rung for rung in RUNGS if rung.name == name)
    found = Row(name, rung.heading(CPU), rung.model, rung.fast, rung.is_released, reason)
    found.ms, found.peak_bytes = ms, peak
    return found


def made(*rows: Row) -> Ladder:
    return Ladder(FACTS, 8, [8, 120, 25, 3], {}, list(rows))


def test_command_end_to_end(
    tmp_path: Path, architecture: list[str], capsys: pytest.CaptureFixture[str], every_16_bit_product: None
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "ladder"
    given = ["--device", "cpu", "--out", str(out), "--sequences", "2", "--rounds", "2", "--warmup", "0"]
    assert cli.main(["bench", "ladder", *given, *architecture]) == 0
    captured = capsys.readouterr()
    printed, told = captured.out, captured.err
    assert "fastamr-fp32 against SkeletonMAE as released: " in printed
    # Progress: each rung that runs says that it begins, that it was checked, and how long all of them still take.
    assert f"1 of {len(RUNGS)}, mae-fp32: time left unknown" in told
    assert re.search(r"   first update \d+\.\d\d s, checked; about [\d.]+ s left", told)
    assert re.search(rf"{len(RUNGS) - 1} of {len(RUNGS)}, fastmae-bf16: about [\d.]+ s left", told)
    assert "amr-graph: no time: for an NVIDIA GPU only" in printed
    assert "mae-compiled: no time: torch.compile takes minutes on a CPU: ask with --rungs all" in printed
    assert (
        "fastslim-bf16: no time: 65,536 prototypes take long on a CPU: ask with --rungs fastslim" in printed
    )
    report = json.loads((out / "ladder.json").read_text())
    assert {
        "kind",
        "environment",
        "sequences",
        "clip_shape",
        "architecture",
        "rows",
        "ratios",
        "flops",
    } == set(report)
    assert report["flops"] == CONVENTION
    assert (report["kind"], report["sequences"], report["clip_shape"]) == ("ladder", 2, [2, 24, 25, 3])
    assert {"device_name", "date", "torch", "threads", "load"} <= set(report["environment"])
    rows = {entry["name"]: entry for entry in report["rows"]}
    assert list(rows) == [rung.name for rung in RUNGS]
    timed = [entry for entry in rows.values() if entry["reason"] is None]
    assert {entry["name"] for entry in timed} == {
        "mae-fp32", "mae-amp", "mae-sdpa-fp32", "mae-sdpa", "amr-fp32", "amr-bf16",
        "fastamr-fp32", "fastamr-bf16", "fastmae-fp32", "fastmae-bf16",
    }  # fmt: skip
    for entry in timed:
        assert len(entry["rounds_ms"]) == 2
        assert min(entry["rounds_ms"]) <= entry["ms"] <= max(entry["rounds_ms"])
        assert entry["sequences_per_second"] == pytest.approx(2e3 / entry["ms"])
        assert 0 <= entry["error"] <= entry["tolerance"]
        assert entry["mfu"] is None
        assert entry["tflop"] > 0
    assert rows["mae-fp32"]["tflop"] > 1.5 * rows["fastamr-fp32"]["tflop"]
    assert [entry["rung"] for entry in report["ratios"]] == ["fastamr-fp32", "fastamr-bf16"]
    lines = (out / "ladder.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 3 + len(RUNGS)
    assert table[-1].startswith("| AMR against SkeletonMAE, both fast (fastamr-")
    assert (out / "ladder.png").read_bytes()[:4] == b"\x89PNG"
    assert ElementTree.parse(out / "ladder.svg").getroot().tag.endswith("svg")
    assert sorted(path.name for path in out.iterdir()) == [
        f"ladder.{end}" for end in ("json", "md", "png", "svg")
    ]


def test_three_ratios_together_by_hand() -> None:
    rows = [row("mae-fp32", 300.0), row("mae-sdpa", 60.0), row("mae-compiled", 40.0)]
    rows += [row("amr-fp32", 30.0), row("amr-bf16", 10.0), row("fastamr-fp32", 8.0), row("fastamr-bf16", 5.0)]
    first, second = ratios(made(*rows))
    assert (first["rung"], second["rung"]) == ("fastamr-fp32", "fastamr-bf16")
    assert second["released"] == {"against": "mae-fp32", "times": 60.0}
    assert second["skeleton_mae"] == {"against": "mae-compiled", "times": 8.0}
    assert second["amr"] == {"against": "amr-bf16", "times": 2.0}
    assert first["amr"]["times"] == pytest.approx(10 / 8)


def test_missing_rungs_are_not_compared_with() -> None:
    rows = [
        row("mae-fp32", None, reason="OutOfMemoryError: 51 GiB"),
        row("mae-sdpa", 60.0),
        row("fastamr-bf16", 5.0),
    ]
    (found,) = ratios(made(*rows))
    assert found["released"] is None
    assert found["skeleton_mae"]["against"] == "mae-sdpa"
    assert found["amr"] is None
    text = as_text(made(*rows))
    assert "fastamr-bf16 against SkeletonMAE as released: not measured in this run" in text
    assert "mae-fp32: no time: OutOfMemoryError: 51 GiB" in text
    assert "-" in text.splitlines()[3]


def test_table_says_what_was_measured() -> None:
    fast = row("fastamr-bf16", 5.0, peak=3 * 2**30)
    fast.mfu, fast.sequences_per_second, fast.error, fast.prepare_seconds = 0.305, 51200.0, 1e-3, 2.5
    rows = made(row("mae-fp32", 300.0, peak=2**20), fast)
    for text in (as_text(rows), as_markdown(rows)):
        assert "a machine, 2026-11-21, torch 2.13, 8 x 120 x 25 x 3 (S x T x V x C)" in text
        for word in ("51,200", "3.00 GiB", "1 MiB", "30.5%", "60.0x", "2.5 s", "1.0e-03"):
            assert word in text, word
    assert memory_text(None) == "-"
    assert json.loads(json.dumps(to_json(rows)))["rows"][1]["mfu"] == 0.305


def test_a_longer_bar_is_longer_by_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a logarithmic axis nine times as long looks like a third more."""
    pytest.importorskip("matplotlib")
    figures: list[Any] = []
    monkeypatch.setattr(charts, "save_figure", lambda figure, path: figures.append(figure))
    draw_ladder(tmp_path / "a.svg", made(row("mae-fp32", 900.0), row("fastamr-fp32", 100.0)))
    (axes,) = figures[0].axes
    left, right = axes.get_xlim()
    assert (axes.get_xscale(), left) == ("linear", 0.0)
    ends = [axes.transData.transform((bar.get_width(), 0))[0] for bar in axes.patches]
    zero = axes.transData.transform((0, 0))[0]
    assert (ends[0] - zero) / (ends[1] - zero) == pytest.approx(9)
    assert right >= 1.2 * 900  # the longest bar's text has room


def test_slow_speeds_have_decimals() -> None:
    slow = row("mae-fp32", 80_000.0)
    slow.sequences_per_second = 0.1
    fast = row("fastamr-fp32", 83_300.0)
    fast.sequences_per_second = 0.096
    text = as_text(made(slow, fast))
    assert "  0.1  " in text
    assert "  0.096  " in text
    assert "0.96x" in text


def test_both_fast_by_hand() -> None:
    """The fastest of the library's rungs of each model: what the algorithm saves."""
    rows = [row("mae-fp32", 300.0), row("fastamr-fp32", 8.0), row("fastamr-bf16", 5.0)]
    assert last_line(made(*rows)) == "AMR against SkeletonMAE, both fast: not measured"
    rows.append(row("fastmae-fp32", 40.0))  # bfloat16 is not compared with float32
    assert last_line(made(*rows)) == "AMR against SkeletonMAE, both fast (fastamr-fp32, fastmae-fp32): 5.00x"
    rows.append(row("fastmae-bf16", 20.0))
    assert last_line(made(*rows)) == "AMR against SkeletonMAE, both fast (fastamr-bf16, fastmae-bf16): 4.00x"
    table = as_text(made(*rows)).splitlines()[2:]
    ends = next(place for place, line in enumerate(table) if not line)
    assert re.fullmatch(r"AMR against .*both fast \(fastamr-bf16, fastmae-bf16\) +4\.00x", table[ends - 1])
    found = ratios(made(*rows))
    assert [entry["rung"] for entry in found] == ["fastamr-fp32", "fastamr-bf16"]
    assert found[0]["skeleton_mae_fast"] == {"against": "fastmae-fp32", "times": 5.0}
    assert found[1]["skeleton_mae_fast"] == {"against": "fastmae-bf16", "times": 4.0}
    assert found[1]["skeleton_mae"]["against"] == "mae-fp32"  # the library's own is no plain PyTorch


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str, code: int = 1) -> str:
        where = ["--out", str(tmp_path / "out"), "--device", "cpu"]
        assert cli.main(["bench", "ladder", *where, *arguments]) == code
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    assert "did you mean 'mae-fp32'" in refused("--rungs", "mae-fp23")
    assert "unknown option --model.dept; did you mean --model.depth?" in refused("--model.dept", "4", code=2)
    assert "unknown option --model.target-patches" in refused("--model.target-patches", "2", code=2)
    assert "sequences is 0, expected at least 1" in refused("--sequences", "0")
    assert "warmup is -1, expected 0 or more" in refused("--warmup", "-1")
    (tmp_path / "file").touch()
    assert "is or lies in a file; name another place" in refused("--out", str(tmp_path / "file" / "such"))
    assert cli.main(["bench", "ladder", "--device", "gpu"]) == 1
    assert cli.main(["bench"]) == 2
    assert cli.main(["bench", "lader"]) == 2


def test_nothing_to_draw_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rung of the ladder has a time"):
        draw_ladder(tmp_path / "a.png", made(row("mae-fp32", None, reason="too large")))


def test_chart_names_every_bar_hardware_and_date(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row("mae-fp32", 2232.0), row("amr-fp32", 222.0), row("fastamr-fp32", 74.4), row("mae-amp", None)]
    draw_ladder(tmp_path / "a.svg", made(*rows))
    text = (tmp_path / "a.svg").read_text()
    for word in ("SkeletonMAE as released, fp32", "fastamr, fp32", "2,232 ms   1.00x", "74.4 ms   30.0x"):
        assert f"<!-- {word} -->" in text, word
    assert "a machine, 2026-11-21" in text
    assert "autocast" not in text


def test_known_peaks_by_the_longest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.peak_of("NVIDIA H200") == 989e12
    assert machine.peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert machine.peak_of("NVIDIA H100 PCIe") == 756e12
    assert machine.peak_of("Some GPU") is None
    assert machine.known_peak(CPU) is None
    monkeypatch.setattr(machine, "load", lambda: 3.0)
    monkeypatch.setattr(machine.torch, "get_num_threads", lambda: 2)
    assert "other processes keep this machine busy (3.0" in (machine.busy_warning() or "")
    assert "or with OMP_NUM_THREADS=1" in (machine.busy_warning() or "")
    monkeypatch.setattr(machine.torch, "get_num_threads", lambda: 1)  # it is set already
    assert (machine.busy_warning() or "").endswith("measure on a quiet machine")
    monkeypatch.setattr(machine, "load", lambda: 0.1)
    assert machine.busy_warning() is None


def test_an_eager_step_on_a_gpu_is_told() -> None:
    found = made(row("fastamr-bf16", 9.0), row("fastamr-attention", 7.0), row("amr-bf16", 10.0))
    found.environment = {**FACTS, "device": "cuda"}
    found.rows[0].recorded, found.rows[0].graph_reason = False, "cudaErrorStreamCaptureUnsupported"
    found.rows[1].recorded = True
    lines = as_text(found).splitlines()
    told = [line.strip() for line in lines if "EAGER" in line]
    assert told == ["fastamr-bf16: EAGER, not one CUDA graph: cudaErrorStreamCaptureUnsupported"]
    assert to_json(found)["rows"][0]["graph_reason"] == "cudaErrorStreamCaptureUnsupported"


def test_a_ladder_that_is_killed_keeps_what_it_measured(
    tmp_path: Path, tiny: dict[str, Any], architecture: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ladder.build_step

    def killed_at_the_second(rung: Any, *arguments: Any) -> Any:
        if rung.name == "amr-tf32":
            raise KeyboardInterrupt
        return build(rung, *arguments)

    monkeypatch.setattr(ladder, "build_step", killed_at_the_second)
    given = ["--out", str(tmp_path / "x"), "--sequences", "2", "--device", "cpu", *architecture]
    with pytest.raises(KeyboardInterrupt):
        run_command([*given, "--rounds", "1", "--rungs", "amr-fp32", "amr-tf32"])
    rows = json.loads((tmp_path / "x/ladder.json").read_text())["rows"]
    assert [entry["name"] for entry in rows if entry["ms"] is not None] == ["amr-fp32"]
