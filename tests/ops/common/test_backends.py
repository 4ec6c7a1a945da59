from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import fastamr
from fastamr import ops
from fastamr.ops.common.backends import _TABLE, Backend, Problem, _parse, backend, can_always, choose, declare


def test_choice_by_name_op_and_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastamr.native, "why_not", lambda device: "left out for this test")
    problem = Problem("cpu", torch.float32)
    assert choose("visible_attention", problem) == "sdpa"
    with fastamr.backend("reference"):
        assert choose("visible_attention", problem) == "reference"
        with fastamr.backend(visible_attention="sdpa"):
            assert choose("visible_attention", problem) == "sdpa"
            assert choose("motion_entropy", problem) == "reference"
        assert choose("visible_attention", problem) == "reference"
    assert choose("visible_attention", problem, "materialised") == "materialised"


def test_a_general_name_binds_only_ops_that_have_it() -> None:
    with fastamr.backend("sdpa"):
        assert choose("motion_entropy", Problem("cpu", torch.float32)) == "reference"


def test_automatic_choice_skips_what_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastamr.ops.common.backends._TABLE", {})
    declare(
        "_test_op",
        Backend("triton", lambda p: "no GPU" if p.device_type == "cpu" else None),
        Backend("reference", can_always),
    )
    assert choose("_test_op", Problem("cpu", torch.float32)) == "reference"
    assert choose("_test_op", Problem("cuda", torch.float32)) == "triton"
    with pytest.raises(RuntimeError, match="backend 'triton' cannot run _test_op: no GPU"):
        choose("_test_op", Problem("cpu", torch.float32), "triton")
    assert ops.availability("cpu")["_test_op"] == {"triton": "no GPU", "reference": None}


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="did you mean 'reference'"), fastamr.backend("refrence"):
        pass
    with (
        pytest.raises(ValueError, match="did you mean 'motion_entropy'"),
        fastamr.backend(motion_entropi="triton"),
    ):
        pass
    with pytest.raises(ValueError, match="backend of motion_entropy"), fastamr.backend(motion_entropy="sdpa"):
        pass
    with pytest.raises(ValueError, match="unknown backend"):
        _parse("visible_attention=fast")


def test_environment_variable() -> None:
    code = (
        "import torch; from fastamr.ops.common.backends import Problem, choose; "
        "p = Problem('cpu', torch.float32); print(choose('visible_attention', p), choose('motion_entropy', p))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FASTAMR_BACKEND": "visible_attention=materialised"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["materialised", "reference"]


def test_seeds() -> None:
    first = ops.make_seed(torch.Generator().manual_seed(5))
    again = ops.make_seed(torch.Generator().manual_seed(5))
    assert torch.equal(first, again)
    assert first.shape == (2,)
    assert first[1] == 0
    derived = [ops.derive_seed(first, n)[0].item() for n in range(1, 6)]
    assert len({first[0].item(), *derived}) == 6
    assert ops.derive_seed(torch.tensor([2**63 - 1, 7]), 3)[1] == 7


def test_a_truth_overrides_every_choice() -> None:
    problem = Problem("cpu", torch.float64)
    for op in _TABLE:
        with backend("auto", **{op: next(iter(_TABLE[op]))}), ops.reference_only():
            assert choose(op, problem) == "reference"
            assert choose(op, problem, "auto") == "reference"
    with ops.reference_only(), ops.reference_only():
        pass
    assert choose("row_norm", Problem("cpu", torch.float32), "torch") == "torch"
