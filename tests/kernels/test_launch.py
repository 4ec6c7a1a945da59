from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
import torch
import triton
import triton.language as tl
from fastamr.kernels import launch as module
from fastamr.kernels.launch import (
    Config,
    architecture,
    assume,
    interpreted,
    launch,
    pick,
    record,
    row_class,
    take,
    tuned,
)


@triton.jit
def _copy(source, target, count, BLOCK: tl.constexpr):
    # source, target (count,)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + index, tl.load(source + index, mask=index < count), mask=index < count)


def run(values: torch.Tensor, config: Config) -> torch.Tensor:
    out = torch.full_like(values, -1)
    grid = (triton.cdiv(len(values), config.blocks["BLOCK"]),)
    launch(_copy, grid, values.device, config, source=values, target=out, count=len(values))
    return out


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17])
def test_launch_runs_the_grid(count: int, device: torch.device) -> None:
    values = torch.arange(count, dtype=torch.float32, device=device)
    assert torch.equal(run(values, Config({"BLOCK": 16})), values)


def test_record_writes_launches_down_instead_of_running_them() -> None:
    values = torch.arange(5.0)
    with record() as launches:
        assert (run(values, Config({"BLOCK": 4}, num_warps=2)) == -1).all()
    (written,) = launches
    assert written.kernel is _copy
    assert written.grid == (2,)
    assert written.config.num_warps == 2
    assert written.arguments["count"] == 5
    assert written.arguments["BLOCK"] == 4
    assert torch.equal(run(values, Config({"BLOCK": 4})), values), "after the block launches run again"


def test_the_architecture_is_assumed_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert architecture(cpu) == 90
    with assume(80):
        assert architecture(cpu) == 80
        with record(100):
            assert architecture(cpu) == 100
            assert not interpreted(cpu), "nothing runs, so nothing is interpreted"
        assert architecture(cpu) == 80
    assert architecture(cpu) == 90
    assert interpreted(cpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (12, 1))
    assert architecture(torch.device("cuda", 0)) == 121
    assert not interpreted(torch.device("cuda", 0))


def test_the_table_decides_unless_tuning_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = (Config({"BLOCK": 4}), Config({"BLOCK": 8}))

    def refuse(config: Config) -> None:
        raise AssertionError("nothing is timed")

    assert pick("copy", (5,), candidates, refuse, torch.device("cpu")) is candidates[0]
    monkeypatch.setenv("FASTAMR_AUTOTUNE", "1")
    assert pick("copy", (5,), candidates, refuse, torch.device("cpu")) is candidates[0], "a CPU is not tuned"


def test_nothing_tuned_is_taken_where_bits_must_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = (Config({"BLOCK": 4}), Config({"BLOCK": 8}))
    monkeypatch.setenv("FASTAMR_AUTOTUNE", "1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(module, "_tuned", {("copy", 5, (9, 0)): candidates[1]})
    monkeypatch.setattr(module, "_tuning", lambda device: True)
    arguments = ("copy", (5,), candidates, lambda config: None, torch.device("cuda", 0))
    assert pick(*arguments) is candidates[1]
    torch.use_deterministic_algorithms(True)
    try:
        assert pick(*arguments) is candidates[0]
    finally:
        torch.use_deterministic_algorithms(False)


def test_tuning_takes_the_fastest_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice itself, with the clock and the GPU replaced."""
    candidates = (Config({"BLOCK": 4}), Config({"BLOCK": 8}), Config({"BLOCK": 16}))
    timed: list[int] = []

    def bench(function: object) -> float:
        function()  # type: ignore[operator]
        return {4: 3.0, 8: 1.0, 16: 2.0}[timed[-1]]

    monkeypatch.setattr(module, "_tuning", lambda device: True)
    monkeypatch.setattr(module, "_tuned", {})
    monkeypatch.setattr(triton.testing, "do_bench", bench)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    for _ in range(2):
        best = pick(
            "copy", (5,), candidates, lambda c: timed.append(c.blocks["BLOCK"]), torch.device("cuda", 0)
        )
        assert best is candidates[1]
    assert timed == [4, 8, 16]


def test_what_another_process_timed_is_taken_by_its_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuned choices of 19,200 and of 32,000 rows are written out and taken apart; what is no candidate is not."""
    candidates = (Config({"BLOCK": 4}), Config({"BLOCK": 8}), Config({"BLOCK": 16}, num_warps=8))
    few, many = row_class(19_200), row_class(32_000)
    assert few != many
    assert row_class(0) == row_class(1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for name in ("_tuned", "_given", "_resolved"):
        monkeypatch.setattr(module, name, {})
    monkeypatch.setattr(
        module,
        "_tuned",
        {
            ("copy", 5, torch.bfloat16, few, (9, 0)): candidates[1],
            ("copy", 5, torch.bfloat16, many, (9, 0)): candidates[2],
            ("copy", 6, torch.bfloat16, many, (9, 0)): Config({"BLOCK": 1 << 19}),
        },
    )
    written = json.loads(json.dumps(tuned()))
    monkeypatch.setattr(module, "_tuned", {})
    take(
        {(each["kernel"], each["shape"]): (each["blocks"], each["warps"], each["stages"]) for each in written}
    )

    def picked(*shape_class: object, device: str = "cuda") -> Config:
        return pick("copy", shape_class, candidates, lambda config: None, torch.device(device, 0))

    assert picked(5, torch.bfloat16, few) is candidates[1]
    assert picked(5, torch.bfloat16, many) is candidates[2]
    assert picked(6, torch.bfloat16, many) is candidates[0]
    assert picked(5, torch.float16, many) is candidates[0]
    assert picked(5, torch.bfloat16, many, device="cpu") is candidates[0]
    with record():
        assert picked(5, torch.bfloat16, many) is candidates[0]
    torch.use_deterministic_algorithms(True)
    try:
        assert picked(5, torch.bfloat16, many) is candidates[0]
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_no_tuning_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAMR_AUTOTUNE", "1")
    device = torch.device("cuda")
    assert module._tuning(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        assert not module._tuning(device)
