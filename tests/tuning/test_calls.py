"""The calls of an update: every one has a case that makes it, so that ``fastamr tune`` can check it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastamr.benchmarking.step import build_fast_step
from fastamr.cli import main
from fastamr.models import MODELS
from fastamr.ops.common.backends import Problem, backend, candidates, first_problem
from fastamr.ops.common.tuned import class_of
from fastamr.testing.op_cases import CASES
from fastamr.testing.op_sizes import SMALL
from fastamr.tuning.worker import matching

SIZES = {"width": 32, "depth": 1, "heads": 2, "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
OTHERS = {"asma": {"projector": 32, "width": 32, "heads": 2, "depth": 1}}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.slow] if name == "asma" else []) for name in MODELS]
)
def test_every_call_of_an_update_has_its_case(model: str, precision: str) -> None:
    step = build_fast_step(
        model, OTHERS.get(model, SIZES), torch.device("cpu"), sequences=2, precision=precision
    )
    calls = step.calls()
    assert {op for op, _ in calls} >= {"sample_clips", "select_visible", "adamw_update"}
    shapes = {class_of(op, each.dtype, each.features, each.sizes) for op, each in calls}
    assert [shape.label for shape in shapes if not matching(shape, step.basis(), "cpu")] == []


def test_calls_of_a_stack_are_known_where_it_runs_block_by_block() -> None:
    step = build_fast_step("amr", SIZES, torch.device("cpu"), sequences=2)
    with backend(transformer_stack="reference"):
        assert {"linear_gelu", "row_norm", "weight_gradient"} <= {op for op, _ in step.calls()}


def test_candidates_leave_out_what_is_there_for_comparison() -> None:
    sizes = {"size": 16, "keys": 6, "work": 1, "sequences": 2, "queries": 6, "heads": 2}
    found = candidates("visible_attention", Problem("cpu", torch.float32, sizes=sizes))
    assert "materialised" not in found
    assert {"sdpa", "reference"} <= set(found)
    # Triton's interpreter, which the tests run, is no way to train.
    assert "triton" not in candidates("row_norm", Problem("cpu", torch.float32))


def test_a_problem_is_told_without_running_the_call() -> None:
    (case,) = (case for case in CASES if case.label == "row_norm")
    sizes = replace(SMALL, rows=7, width=9)
    problem = first_problem(case.bind(case.arguments(sizes)))
    assert problem == Problem("cpu", torch.float32, (), {"rows": 7, "width": 9})
    assert first_problem(lambda: None) is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--limit", "0"], 2, "limit is 0, expected a positive number of seconds"),
        (["--device", "nonsense"], 2, "device 'nonsense' cannot be used"),
        (["--config", "missing.yaml"], 2, "missing.yaml"),
        (["--batch-size", "0"], 2, "batch_size"),
        (["--out", "."], 1, "is a folder: name a file"),
    ],
)
def test_wrong_options_end_in_one_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
