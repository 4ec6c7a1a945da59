"""The forms of a step that the ladder compares: each is what its name says, and right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastamr
from fastamr import cli, devices
from fastamr.benchmarking import RUNGS, LadderOptions, ladder, run_ladder, rungs
from fastamr.benchmarking.ladder import Row
from fastamr.benchmarking.ladder_report import last_line, ratios
from fastamr.benchmarking.ntu_sized import ntu_sized
from fastamr.benchmarking.plain_step import PlainStep
from fastamr.benchmarking.rungs import choose_rungs
from fastamr.benchmarking.step import FastStep
from fastamr.benchmarking.timing import PeakMemory
from fastamr.models import build_model
from fastamr.ops.common.backends import watched
from fastamr.testing import random_clips

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("name", ["fastamr-bf16", "fastamr-branch"])
def test_the_branch_is_a_rung_of_its_own(tiny: dict[str, Any], name: str) -> None:
    (rung,) = (each for each in RUNGS if each.name == name)
    model = build_model("amr", tiny)
    ladder.build_step(rung, model, ntu_sized(2), 2)
    stacks = [each.side_branch for each in model.modules() if hasattr(each, "side_branch")]
    assert stacks == [name == "fastamr-branch"] * 2
    ((_, reason),) = choose_rungs(["fastamr-branch"], CPU)
    assert reason == "for an NVIDIA GPU only"


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
