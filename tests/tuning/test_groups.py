"""What tuning decides about Triton's kernels: a block's four weights in one launch or not, and their blocks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastamr.kernels import launch, row_norm
from fastamr.kernels import weight_gradient as kernels

from fastamr import ops
from fastamr.nn.stacks.layers import row_problems
from fastamr.ops.common import tuned
from fastamr.ops.common.backends import _TABLE, Problem, candidates, choose
from fastamr.ops.common.record import Measured, Record, Tried, read_record
from fastamr.ops.common.tuned import class_of
from fastamr.ops.rows.weight_gradient import weight_gradients_problem
from fastamr.tuning import TuneOptions, tune
from fastamr.tuning.tune import _Class, _Tuner
from fastamr.tuning.worker import matching

from .planted_groups import plant

WORKER = (sys.executable, str(Path(__file__).with_name("planted_groups.py")))
BASIS = {"sequences": 2, "frames": 8, "joints": 3, "width": 16, "hidden": 32, "low": "bfloat16"}
SHAPES = [(16, 32), (32, 16), (16, 16), (48, 16)]


@pytest.fixture
def planted() -> Iterator[None]:
    before = _TABLE["weight_gradient"]
    plant()
    yield
    _TABLE["weight_gradient"] = before


def groups_of(device: str, dtype: torch.dtype, rows: int, width: int, hidden: int) -> list[Problem]:
    """Calls for several weights that a block of this size makes on a device."""
    like: Any = SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(rows, width))
    found = [problem for op, problem in row_problems(like, hidden) if op == "weight_gradient"]
    return [problem for problem in found if "outputs0" in problem.sizes]


def test_a_gpu_is_asked_about_the_groups_of_both_kinds_of_blocks() -> None:
    assert groups_of("cpu", torch.bfloat16, 50, 16, 32) == []
    for rows in (19_200, 32_000):
        found = groups_of("cuda", torch.bfloat16, rows, 256, 1024)
        assert [problem.sizes["outputs3"] for problem in found] == [768, 256]
        for problem in found:
            assert problem.sizes["rows"] == rows
            assert {"triton", "torch"} <= set(candidates("weight_gradient", problem))
            shape = class_of("weight_gradient", problem.dtype, (), problem.sizes)
            ((case, sizes),) = matching(shape, BASIS, "cpu") or [(None, None)]
            assert case is not None, "a case makes this call, so that it can be checked"
            assert case.name == "weight_gradients"
            assert (sizes.rows, sizes.width, sizes.hidden) == (rows, 256, 1024)


def test_a_record_decides_by_rows() -> None:
    """The step asks with the rows of its blocks: a group that was fast with many rows is not taken with few."""
    like = torch.empty(0, 16, dtype=torch.bfloat16)
    problem = weight_gradients_problem(like, 19_200, SHAPES)
    shape = class_of("weight_gradient", problem.dtype, (), problem.sizes)
    times = {"triton": Tried(ms=1.0), "torch": Tried(ms=2.0)}
    with tuned.using("cuda", Record({}, (Measured(shape, "triton", times),))):
        for rows, name in ((19_200, "triton"), (30_000, "triton"), (9_000, "torch"), (125, "torch")):
            asked = Problem("cuda", torch.bfloat16, (), {**problem.sizes, "rows": rows})
            assert choose("weight_gradient", asked) == name


@pytest.mark.slow
def test_the_fastest_way_is_measured_and_taken(planted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """From end to end without a GPU: worker, float64, clock, record, and the gradients of the step's own call."""
    like = torch.empty(0, 16)
    call = ("weight_gradient", weight_gradients_problem(like, 40, SHAPES))
    record = tune(
        [call], BASIS | {"low": "float32"}, options=TuneOptions(quick=True, limit=60), worker=WORKER
    )
    (measured,) = record.classes
    assert measured.backend == "triton"
    assert measured.shape.sizes[0] == ("rows", 40)
    for name in ("triton", "torch"):
        assert measured.tried[name].failed is None
    assert measured.tried["torch"].ms > measured.tried["triton"].ms

    pairs = [(torch.randn(40, f), torch.randn(40, d)) for f, d in SHAPES]
    launches: list[int] = []
    own = kernels.weight_gradients
    monkeypatch.setattr(kernels, "weight_gradients", lambda given: launches.append(len(given)) or own(given))
    with tuned.using("cpu", record):
        assert ops.groups_weight_gradients(like, SHAPES, rows=40)
        assert not ops.groups_weight_gradients(like, SHAPES, rows=400)
        found = ops.weight_gradients(pairs)
    assert launches == [4]
    for value, (upstream, x) in zip(found, pairs, strict=True):
        torch.testing.assert_close(value, upstream.T @ x, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_blocks_are_chosen_kept_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From end to end but for the clock: worker, check, record's file, and the launcher that takes what is in it."""
    problem = Problem("cpu", torch.float32, (), {"rows": 19_200, "width": 256})
    shape = class_of("row_norm", problem.dtype, (), problem.sizes | {"rows": 40})
    said: list[str] = []
    tuner = _Tuner("cpu", BASIS | {"low": "float32"}, TuneOptions(limit=60), said.append, WORKER)
    tuner.choose_tiles(
        "row_norm", "triton", [_Class(shape, problem, ["triton"], {"triton": Tried(error=0.0)})]
    )
    assert said == []
    Record({"kind": "cpu"}, (), tiles=tuple(tuner.tiles.values())).save(tmp_path / "record.json")
    record = read_record(tmp_path / "record.json")
    assert {tile.kernel for tile in record.tiles} == {"norm_rows", "norm_backward_rows"}

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for name in ("_tuned", "_given", "_resolved"):
        monkeypatch.setattr(launch, name, {})
    tuned.take_tiles(record.tiles)
    candidates = row_norm._configs(256)
    for rows, place in ((40, -1), (19_200, 0)):
        kind = (256, torch.float32, True, True, launch.row_class(rows))
        taken = launch.pick("norm_rows", kind, candidates, lambda config: None, torch.device("cuda", 0))
        assert taken == candidates[place]
