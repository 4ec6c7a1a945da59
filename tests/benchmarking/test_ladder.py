from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastamr
from fastamr import cli, devices
from fastamr.benchmarking import RUNGS, LadderOptions, charts, ladder, machine, run_ladder, rungs
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
from fastamr.benchmarking.ntu_sized import ntu_sized
from fastamr.benchmarking.plain_step import PlainStep
from fastamr.benchmarking.rungs import choose_rungs
from fastamr.benchmarking.step import FastStep
from fastamr.benchmarking.timing import PeakMemory
from fastamr.commands.bench.ladder import run as run_command
from fastamr.models import build_model
from fastamr.ops.common.backends import watched
from fastamr.testing import random_clips

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


@pytest.mark.parametrize("name", ["fastamr-bf16", "fastamr-branch"])
def test_the_branch_is_a_rung_of_its_own(tiny: dict[str, Any], name: str) -> None:
    (rung,) = (each for each in RUNGS if each.name == name)
    model = build_model("amr", tiny)
    ladder.build_step(rung, model, ntu_sized(2), 2)
    stacks = [each.side_branch for each in model.modules() if hasattr(each, "side_branch")]
    assert stacks == [name == "fastamr-branch"] * 2
    ((_, reason),) = choose_rungs(["fastamr-branch"], CPU)
    assert reason == "for an NVIDIA GPU only"


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


def test_a_wrong_rung_gets_no_time(
    tmp_path: Path,
    architecture: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A baseline that computes something else than the reference: listed, not timed, exit code 1."""
    exact = ladder.exact_loss
    monkeypatch.setattr(ladder, "exact_loss", lambda *arguments: 1.001 * exact(*arguments))
    given = ["--out", str(tmp_path / "x"), "--sequences", "2", "--device", "cpu", *architecture]
    assert cli.main(["bench", "ladder", *given, "--rounds", "1", "--rungs", "amr-fp32", "amr-bf16"]) == 1
    assert "amr-fp32: the loss disagrees with the float64 reference" in capsys.readouterr().err
    rows = {entry["name"]: entry for entry in json.loads((tmp_path / "x/ladder.json").read_text())["rows"]}
    assert rows["amr-fp32"]["wrong"]
    assert rows["amr-fp32"]["ms"] is None
    assert "DisagreementError: the loss is " in rows["amr-fp32"]["reason"]
    assert not rows["amr-bf16"]["wrong"]


def test_an_update_that_changes_nothing_gets_no_time(
    tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    options = LadderOptions(sequences=2, rounds=1, rungs=["amr-fp32"], architecture=tiny)
    (found,) = run_ladder(options, CPU).rows
    assert found.wrong
    assert "did not change" in (found.reason or "")


def test_a_rung_that_cannot_run_is_listed(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    build = ladder.build_step

    def short_of_memory(rung: Any, *arguments: Any) -> Any:
        if rung.is_released:
            raise torch.OutOfMemoryError("CUDA out of memory.\n Tried to allocate 51 GiB")
        return build(rung, *arguments)

    monkeypatch.setattr(ladder, "build_step", short_of_memory)
    seen: list[str] = []
    options = LadderOptions(sequences=2, rounds=1, rungs=["mae-fp32", "amr-fp32"], architecture=tiny)
    result = run_ladder(options, CPU, report=lambda so_far: seen.append(so_far.rows[-1].name))
    assert seen == ["mae-fp32", "amr-fp32"]
    assert result.rows[0].reason == "OutOfMemoryError: CUDA out of memory. Tried to allocate 51 GiB"
    assert not result.wrong
    assert result.rows[1].ms is not None


@pytest.mark.slow
def test_slims_rung_agrees_and_is_measured_when_it_is_named(
    tiny: dict[str, Any], every_16_bit_product: None
) -> None:
    """Its loss is one of the whole batch, which the comparison with float64 must not cut into parts."""
    options = LadderOptions(
        sequences=10, rungs=("fastslim-bf16",), rounds=1, warmup=0, architecture={**tiny, "blocks": "auto"}
    )
    (slim,) = run_ladder(options, CPU).rows
    assert (slim.reason, slim.wrong) == (None, False)
    assert slim.ms is not None
    assert slim.error is not None
    assert slim.error < 1e-2
    assert slim.tflop is not None


def test_released_rungs_keep_74_tokens_and_others_75(tiny: dict[str, Any]) -> None:
    for rung in RUNGS:
        if rung.model == "slim":  # which masks regions, not a share of the tokens
            continue
        model = ladder._build(rung.model, ladder._settings(rung, {**tiny, "frames": 120}), CPU)
        assert model.config.visible == (74 if rung.is_released else 75), rung.name


class Products(TorchDispatchMode):
    """Collects the dtypes of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if str(function).startswith(("aten.mm", "aten.addmm", "aten.bmm")):
            self.dtypes.add(result.dtype)
        return result


@pytest.mark.parametrize("rung", [rung for rung in RUNGS if not rung.fast], ids=lambda rung: rung.name)
def test_plain_rungs_multiply_in_the_precision_they_name(rung: Any, tiny: dict[str, Any]) -> None:
    """A baseline in another precision than it says would be a weaker or a stronger one."""
    model = ladder._build(rung.model, tiny, CPU)
    precision = rung.precision_on(CPU)
    step = PlainStep(model, random_clips(2, 24), attention=rung.attention, precision=precision)
    with Products() as products:
        step()
    title = rung.heading(CUDA)
    if "bf16" in rung.heading(CPU):
        assert torch.bfloat16 in products.dtypes
    else:
        assert products.dtypes == {torch.float32}
        assert precision == ("tf32" if "TF32" in title else "float32")
    assert rung.fused != (
        rung.name in ("mae-fp32", "mae-tf32", "mae-amp", "mae-sdpa")
    )  # on a CPU all have it
    assert rung.compiled == ("compiled" in title)
    assert rung.graph == ("CUDA graph" in title)


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


class TestWithoutInstructions:
    """Forms that the processor would emulate are listed with the reason, and run only where they are named."""

    def test_on_a_processor_with_neither(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "processor_features", lambda: {"avx2": True, "avx512_f": True})
        monkeypatch.setattr(rungs.native, "has_matrix_unit", lambda: False)
        monkeypatch.setattr(rungs, "processor_features", lambda: {"avx2": True})
        reasons = {rung.name: reason for rung, reason in choose_rungs([], CPU)}
        runs = [name for name, reason in reasons.items() if reason is None]
        assert runs == ["mae-fp32", "mae-sdpa-fp32", "amr-fp32", "fastamr-fp32", "fastmae-fp32"]
        assert (reasons["fastamr-bf16"] or "").startswith(
            "no instructions for bfloat16 products on this processor"
        )
        assert (reasons["fastamr-bf16"] or "").endswith("--rungs fastamr-bf16 runs it all the same")
        assert (reasons["amr-tf32"] or "").startswith("the same as float32")
        everything = {rung.name: reason for rung, reason in choose_rungs(["all"], CPU)}
        differ = {name for name, reason in everything.items() if reason != reasons[name]}
        assert differ == {"mae-compiled", "amr-compiled", "fastslim-bf16"}  # what takes minutes on a CPU
        assert "no instructions" in (everything["amr-compiled"] or "")
        assert choose_rungs(["amr-bf16"], CPU)[0][1] is None

    @pytest.mark.parametrize("feature", ["amx_bf16", "avx512_bf16", "bf16"])
    def test_on_a_processor_with_bfloat16(self, feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(devices, "processor_features", lambda: {feature: True})
        assert devices.missing_instructions(CPU, torch.bfloat16) is None
        assert "float16" in (devices.missing_instructions(CPU, torch.float16) or "")
        assert devices.missing_instructions(CPU, torch.float32) is None
        assert (
            dict(choose_rungs(["all"], CPU))[next(each for each in RUNGS if each.name == "amr-bf16")] is None
        )

    def test_on_a_gpu_before_bfloat16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
        assert "compute capability 8.0" in (devices.missing_instructions(CUDA, torch.bfloat16) or "")
        assert devices.missing_instructions(CUDA, torch.float16) is None

    def test_what_pytorch_tells_of_this_processor(self) -> None:
        features = devices.processor_features()
        assert features
        assert bool(features.get("avx512_bf16", False)) == torch.cpu._is_avx512_bf16_supported()

    def test_a_unit_runs_shorter_float32_products(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rungs.native, "has_matrix_unit", lambda: True)
        monkeypatch.setattr(rungs, "processor_features", dict)
        reasons = {rung.name: reason for rung, reason in choose_rungs([], CPU)}
        assert reasons["fastamr-tf32"] is None
        assert reasons["amr-tf32"] is not None
        monkeypatch.setattr(rungs, "processor_features", lambda: {"amx_fp16": True})
        assert {rung.name: reason for rung, reason in choose_rungs([], CPU)}["amr-tf32"] is None


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


def test_the_fast_skeleton_mae_is_the_librarys_step(tiny: dict[str, Any]) -> None:
    """With fused stacks and the public recipe's 75 tokens; checked as the others are."""
    (rung,) = (each for each in RUNGS if each.name == "fastmae-fp32")
    options = LadderOptions(sequences=2, rounds=1, rungs=[rung.name], architecture=tiny).on(CPU)
    measured = Row(rung.name, rung.heading(CPU), rung.model, rung.fast, rung.is_released)
    with watched() as calls:
        step = ladder.checked_step(rung, measured, options, ntu_sized(2), PeakMemory(CPU))
    assert isinstance(step, FastStep)
    assert step.model.name == "skeleton_mae"
    assert 0 <= (measured.error or 0.0) <= 1e-4
    assert {"transformer_stack", "masked_patch_gather", "adamw_update"} <= {op for op, _, _ in calls}


def test_choice_of_rungs(every_16_bit_product: None) -> None:
    reasons = {rung.name: reason for rung, reason in choose_rungs([], CUDA)}
    assert [name for name, reason in reasons.items() if reason] == ["mae-sdpa-fp32", "amr-fp32"]
    everything = {rung.name: reason for rung, reason in choose_rungs(["all"], CPU)}
    assert {name for name, reason in everything.items() if reason} == {
        *("amr-graph", "fastamr-branch", "fastamr-attention"),
        *("mae-tf32", "amr-tf32", "fastamr-tf32"),
    }
    assert [rung.name for rung, _ in choose_rungs(["amr-bf16", "mae-fp32"], CPU)] == ["mae-fp32", "amr-bf16"]
    with pytest.raises(ValueError, match=r"unknown rung 'amr-bf17'.*did you mean 'amr-bf16'"):
        choose_rungs(["amr-bf17"], CPU)
    assert RUNGS[1].heading(CPU) == "SkeletonMAE as released, fp32 products 'high'"
    assert RUNGS[2].heading(CUDA).endswith("fp16 autocast")
    assert RUNGS[2].heading(CPU).endswith("bf16 autocast")
    assert RUNGS[2].precision_on(CUDA) == "float16"


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


@pytest.mark.gpu
def test_every_rung_on_a_gpu(tiny: dict[str, Any]) -> None:
    """All rungs but the compiled ones agree with float64 there, and the library's own are one graph each.

    Inductor takes minutes for the compiled ones: ``fastamr bench ladder`` runs them.
    """
    rungs = [rung for rung in RUNGS if not rung.compiled]
    options = LadderOptions(sequences=8, rounds=20, architecture=tiny, rungs=[rung.name for rung in rungs])
    result = run_ladder(options, CUDA)
    reasons = {row.name: row.reason for row in result.rows if row.reason}
    assert set(reasons) == {rung.name for rung in rungs if rung.only == "cpu"}, reasons
    assert all(row.peak_bytes for row in result.rows if row.reason is None)
    fast = [row for row in result.rows if row.fast]
    assert {row.name: row.graph_reason for row in fast} == dict.fromkeys(row.name for row in fast)
    assert all(row.recorded for row in fast)
    assert len(fast) == sum(rung.fast for rung in RUNGS)
    assert len(ratios(result)) == sum(row.model == "amr" for row in fast)
    assert "not measured" not in last_line(result)


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


def test_the_truth_is_computed_by_the_reference_whatever_is_named(tiny: dict[str, Any]) -> None:
    """The back end that is judged, and one that cannot run in float64, must not compute the truth."""
    model = ladder._build("amr", tiny, CPU)
    clips, keep = random_clips(2, 24), model.choose_visible(random_clips(2, 24), seed=torch.tensor([1, 2]))
    weights = model.state_dict()
    plain = ladder.exact_loss(model, weights, clips, keep)
    with fastamr.backend(visible_attention="materialised", transformer_stack="fused"), watched() as calls:
        assert ladder.exact_loss(model, weights, clips, keep) == plain
    assert calls
    with fastamr.backend(visible_attention="cuda"):
        assert ladder.exact_loss(model, weights, clips, keep) == plain
