"""The parts of a session on a GPU: the real ones with tiny sizes, on a CPU, and with a stand-in for the GPU's clock."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastamr import ops
from fastamr.testing.op_cases import CASES
from fastamr.testing.op_sizes import PAPER
from tools.session_parts import (
    attention,
    candidates,
    common,
    gates,
    judging,
    machine,
    products,
    steps,
    suite,
    warmup,
    workers,
)
from tools.session_parts.__main__ import PARTS, TASKS, find
from tools.session_parts.common import Context

Said = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(torch.device("cpu"), tmp_path, small=True, ends=time.monotonic() + 120)


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """What was said so far, and forget it."""

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]

    return read


def errors(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in results if each.get("ok") is False]


class PretendedGPU(Context):
    """A context whose device computes on the CPU and is timed as a GPU would be."""

    @property
    def on_gpu(self) -> bool:
        return True

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32


@pytest.fixture
def gpu(context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """Graphs replay what they recorded; the clock counts calls, a millisecond each."""
    calls = []

    def captured(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
        function()

        def replay() -> object:
            calls.append(function)
            return function()

        return replay

    def device_seconds(
        function: Callable[[], object], device: torch.device, *, flush: bool, rounds: int = 3
    ) -> float:
        before = len(calls)
        function()
        return (len(calls) - before) * 1e-3

    monkeypatch.setattr(common, "captured", captured)
    for module in (common, machine):
        monkeypatch.setattr(module, "device_seconds", device_seconds)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    return PretendedGPU(context.device, context.out, context.small, context.ends)


class TestParts:
    """Each does its work on a CPU too, as far as a CPU has it."""

    def test_every_name_leads_to_a_function(self) -> None:
        assert all(callable(find(name)) for name in PARTS.values())
        assert all(callable(find(name)) for names in TASKS.values() for name in names)

    def test_machine(self, context: Context, said: Said) -> None:
        machine.machine(context)
        facts, copies, product, nodes = said()
        assert facts["torch"] == str(torch.__version__)
        assert copies["copy_bytes_per_second"] > 1e8
        assert product["flops"] > 1e6
        assert nodes["eager_us"] > 0

    def test_warmup(self, context: Context, said: Said) -> None:
        tasks = warmup._tasks(context)
        assert len(tasks) == len({tuple(task) for task in tasks}) > 20
        warmup.warm(context, tasks[0])
        assert said()[0] == warmup.label(context, tasks[0]) | {"seconds": pytest.approx(0, abs=60)}

    def test_tune(self, context: Context, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FASTAMR_CACHE", str(context.out))
        monkeypatch.setitem(sys.modules, "fastamr.tuning", None)
        machine.tune(context)
        assert said()[0]["skipped"].startswith("fastamr tune does not run here")

    def test_steps(self, context: Context, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(steps._CHOICES["cpu"], "products", ("cpp",))  # Triton's interpreter is slow
        steps.steps(context)
        results = said()
        assert errors(results) == []
        measured = {each["name"]: each for each in results if "ms" in each}
        assert "default" in measured
        assert any("attention sdpa" in name for name in measured)
        assert all(each["error_of_loss"] < 1e-4 for each in measured.values())
        sdpa = next(each for name, each in measured.items() if "attention sdpa" in name)
        assert "visible_attention=sdpa" in sdpa["uses"]
        assert not any(name.endswith("=reference") for each in measured.values() for name in each["uses"])

    def test_attention(self, context: Context, said: Said) -> None:
        attention.attention(context)
        results = said()
        assert errors(results) == []
        forms = {(each["case"].split()[-1], each["form"]) for each in results if "both_ms" in each}
        assert {("6x6", "sdpa"), ("4x6", "sdpa"), ("6x6", "sdpa math")} <= forms

    @pytest.mark.slow
    def test_products(self, context: Context, said: Said) -> None:
        products.products(context)
        results = said()
        assert errors(results) == []
        forms = {(each["case"], each["form"]) for each in results if "ms" in each}
        assert {
            ("linear_gelu", "bare product"),
            ("linear_gelu", "triton"),
            ("weight_gradients", "torch"),
        } <= forms
        assert len([each for each in results if "text" in each]) == len({case for case, _ in forms})

    def test_the_fastest_form_is_one_that_is_right(self, context: Context) -> None:
        def line(**fields: Any) -> str:
            return json.dumps({"part": "steps", "ok": True, "gate": True} | fields)

        def form(**fields: Any) -> dict[str, Any]:
            return {"attention": None, "products": None, "gradients": None, "branch": False} | fields

        assert steps.fastest(context) is None
        lines = [
            line(ms=1.0, form=form(attention="old")), json.dumps({"part": "session", "parts": []}),
            line(ms=5.0, form=form()), line(ms=4.0, form=form(attention="cuda")),
            line(ms=3.0, form=form(attention="wrong"), ok=False), line(ms=2.0, form=form(branch=True), gate=False),
            json.dumps({"part": "steps", "ok": True, "name": "other"}),
        ]  # fmt: skip
        (context.out / "results.jsonl").write_text("\n".join(lines), encoding="ascii")
        assert steps.fastest(context) == steps.Form(attention="cuda")

    def test_profile(self, context: Context, said: Said) -> None:
        steps.profile(context)
        results = said()
        assert errors(results) == []
        assert [each["name"] for each in results if "wall_ms" in each] == ["default"]
        assert any("kernel" in each for each in results)
        assert (context.out / "trace_default.json").stat().st_size > 1000


class TestTimes:
    def test_of_a_graph_of_several_calls(self, gpu: Context) -> None:
        runs = []
        found = common.milliseconds(lambda: runs.append(1), gpu)
        assert found == {"ms": pytest.approx(0.1), "flushed_ms": pytest.approx(1.0)}
        assert len(runs) == 2 * (10 + 1)

    def test_of_a_graph_of_nodes(self, gpu: Context, said: Said) -> None:
        machine._nodes(gpu)
        found = said()[0]
        assert found["node_us"] == pytest.approx(1e3 / found["nodes"])
        assert found["replay_launch_us"] > 0

    def test_of_products(self, gpu: Context, said: Said) -> None:
        case = next(case for case in CASES if case.name == "linear_gelu")
        products.measure_call(gpu, case, gpu.sizes())
        results = said()
        assert errors(results) == []
        assert all("flushed_ms" in each for each in results if "ms" in each)

    def test_of_attention(self, gpu: Context, said: Said) -> None:
        attention.attention(gpu)
        results = said()
        assert errors(results) == []
        both = [each for each in results if "both_flushed_ms" in each]
        assert {each["form"] for each in both} >= {"sdpa", "sdpa math"}
        assert all(each["both_ms"] == pytest.approx(0.1) for each in both)

    def test_of_the_machine(self, gpu: Context, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        properties = SimpleNamespace(
            major=9, minor=0, multi_processor_count=132, total_memory=1 << 37, L2_cache_size=60 << 20
        )
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(machine, "clocks", lambda device: {"clocks.sm": 1980.0, "power.draw": 650.0})
        monkeypatch.setattr(machine, "known_peak", lambda device: 1e18)
        machine._versions(gpu)
        machine._product(gpu)
        facts, product = said()
        assert (facts["compute_capability"], facts["driver"]) == ("9.0", machine._driver())
        assert product["text"].endswith("right after it 1980 MHz and 650 W")


class TestForms:
    def test_every_combination(self, context: Context) -> None:
        on_gpu = Context(torch.device("cuda"), context.out, small=True, ends=0.0)
        found = list(steps.forms(on_gpu))
        assert len(set(found)) == len(found) == 1 + 2**4
        assert found[0] == steps.Form()
        for name in ("attention", "products", "gradients", "branch"):
            assert len({getattr(form, name) for form in found[1:]}) == 2

    def test_what_a_form_names(self, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        has = {"visible_attention": ["cuda", "sdpa"], "weight_gradient": ["triton"], "linear_gelu": ["torch"]}
        monkeypatch.setattr(steps, "usable", lambda op, context: has.get(op, ["triton"]))
        form = steps.Form("cuda", "torch", "triton", True)
        assert form.backends(context) == {
            "visible_attention": "cuda", "weight_gradient": "triton", "linear_gelu": "torch"
        }  # fmt: skip
        assert steps.Form().backends(context) == {}
        with pytest.raises(LookupError, match="linear_gelu has no back end triton that is ready here"):
            steps.Form(products="triton").backends(context)


class TestCandidates:
    def test_every_tile_of_a_kernel(self) -> None:
        case = next(case for case in CASES if case.label == "linear_gelu")
        found = candidates.of(case, PAPER)
        assert len(found) > 1
        taken = []
        for place in range(len(found) + 1):
            with candidates.launch.record() as launches, candidates.taking(place):
                case.launch(case.arguments(PAPER))
            taken.append(launches[0].config)
        assert taken == [*found, found[-1]]
        with candidates.launch.record() as launches:
            case.launch(case.arguments(PAPER))
        assert launches[0].config == found[0]

    def test_operations(self, context: Context) -> None:
        for name, work in {"linear_gelu": 2 * 5 * 16 * 24, "row_norm": 0}.items():
            case = next(case for case in CASES if case.name == name)
            assert products.flops(case, context.sizes()) == work
        case = next(case for case in CASES if case.name == "weight_gradients")
        pairs = case.arguments(context.sizes())["pairs"]
        each = [2 * len(x) * x.shape[1] * upstream.shape[1] for upstream, x in pairs]
        assert products.flops(case, context.sizes()) == sum(each)


class TestJudging:
    """A result that is a little wrong is wrong, whatever the reference's own error."""

    @pytest.mark.parametrize(
        ("dtype", "spoil"),
        [
            (torch.float32, lambda x: x * (1 + 3e-5)),
            (torch.float32, lambda x: x.bfloat16().float()),
            (torch.bfloat16, lambda x: x * 1.02),
            (torch.float32, lambda x: torch.cat([torch.zeros(1), x[1:]])),
            (torch.float32, lambda x: torch.full_like(x, math.nan)),
            (torch.float32, lambda x: x[:-1]),
        ],
        ids=("a little", "rounded", "in 16 bits", "one lost", "no numbers", "short"),
    )
    def test_ratio(self, dtype: torch.dtype, spoil: Callable[[Any], Any]) -> None:
        truth = torch.randn(1000, dtype=torch.float64)
        peer = truth.to(dtype)
        assert judging.ratio(peer, truth, peer) <= 1
        assert not judging.ratio(spoil(peer), truth, peer) <= 1

    def test_a_wrong_back_end_is_found(self, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        case = next(case for case in CASES if case.label == "row_norm")
        judge = judging.Judge(case, context.sizes())
        assert judge.worst("torch") <= 1
        right = ops.row_norm
        monkeypatch.setattr(ops, "row_norm", lambda *a, **k: [each * 1.001 for each in right(*a, **k)])
        assert judge.worst("torch") > 1

    def test_no_gate_compares_the_reference_with_itself(self, context: Context) -> None:
        names = {
            (judging.all_cases(context)[number][0].name, backend) for number, backend in gates._tasks(context)
        }
        assert ("visible_attention", "sdpa") in names
        assert ("visible_attention_backward_into", "sdpa") not in names
        assert not any(backend in common.PLAIN for _, backend in names)

    def test_every_kind_of_call_is_checked(self, context: Context) -> None:
        assert {case.name for case, _ in judging.all_cases(context)} == {case.name for case in CASES}
        large = Context(context.device, context.out, small=False, ends=context.ends)
        rows = {(case.name, sizes.rows, sizes.hidden) for case, sizes in judging.product_cases(large)}
        assert {("linear_gelu", 19200, 1024), ("linear_residual_norm_backward", 32000, 768)} <= rows


class TestGates:
    @pytest.mark.parametrize("label", ["row_norm", "visible_attention 4x6"])
    def test_check(self, label: str, context: Context, said: Said) -> None:
        numbers = [
            number for number, (case, _) in enumerate(judging.all_cases(context)) if case.label == label
        ]
        for task in [task for task in gates._tasks(context) if task[0] in numbers]:
            gates.check(context, task)
            result = said()[0]
            assert result["ok"] is True
            assert result["gates"] == [f"{label.split()[0]}={task[1]}"]

    def test_a_library_that_is_missing_lets_nothing_through(self, gpu: Context, said: Said) -> None:
        task = gates._tasks(gpu)[-1]
        assert task[1] == "cuda"
        gates.check(gpu, task)
        result = said()[0]
        assert result["gates"] == ["visible_attention=cuda"]
        assert "ok" not in result
        assert "skipped" in result

    @pytest.mark.slow
    def test_updates(self, context: Context, said: Said) -> None:
        gates.gate2(context)
        results = said()
        assert errors(results) == []
        by_check = {each.get("check"): each for each in results}
        assert by_check["gradients"]["error"] < 1e-4
        assert by_check["eager against recorded"]["same_bits"] is True
        assert any(each.get("gates") == ["update=fastamr-fp32"] and each["ok"] for each in results)

    def test_a_wrong_gradient_is_found(
        self, context: Context, said: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = gates.FastStep

        class Wrong(right):  # type: ignore[misc, valid-type]
            def __call__(self) -> torch.Tensor:
                loss = super().__call__()
                next(self.model.parameters()).grad.mul_(1.1)
                return loss

        monkeypatch.setattr(gates, "FastStep", Wrong)
        gates._check_gradients(context, gates.ntu_sized(context.sequences))
        assert said()[0]["ok"] is False


class TestWorkers:
    def spread(
        self, context: Context, said: Said, *tasks: str, seconds: float = 30.0
    ) -> list[dict[str, Any]]:
        workers.spread("rehearsal", list(tasks), context, seconds=seconds, label=lambda task: {"task": task})
        return said()

    @pytest.mark.slow
    def test_one_bad_task_costs_itself(
        self, context: Context, said: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "allowed_cpus", lambda: 1)
        tasks = ("first", "raises", "second", "dies", "third", "spoils", "fourth", "hangs", "fifth")
        found = {each["task"]: each for each in self.spread(context, said, *tasks, seconds=2.0)}
        assert list(found) == list(tasks)
        assert found["raises"]["error"] == "ValueError: a task that fails"
        assert found["dies"]["error"] == "the process ended with status 3"
        assert found["hangs"]["error"] == "no end within 2 s"
        assert [name for name, each in found.items() if "ok" in each] == ["raises", "dies", "hangs"]
        process = {name: each.get("process") for name, each in found.items()}
        assert process["first"] == process["second"] != process["third"]
        assert process["third"] == process["spoils"] != process["fourth"] != process["fifth"]

    def test_time_is_up(self, context: Context, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers, "allowed_cpus", lambda: 1)
        short = Context(context.device, context.out, small=True, ends=time.monotonic() + 1)
        hangs, after, words = self.spread(short, said, "hangs", "after")
        assert hangs["skipped"] == after["skipped"] == "no time was left"
        assert "ok" not in hangs
        assert words["text"] == "no time was left for 1 of 2 tasks"


SUITE = """
import os, time, ctypes
import pytest, torch
pytestmark = pytest.mark.gpu
def test_a(): pass
def test_ab(): assert 1 == 2
def test_dies(): os._exit(7)
def test_hangs(): time.sleep(60)
def test_spoils(monkeypatch):
    torch.cuda.is_initialized = lambda: True
    def broken(*given): raise RuntimeError("an illegal memory access")
    torch.cuda.synchronize = broken
    raise RuntimeError("an illegal memory access")
def test_after(): pass
def test_skips(): pytest.skip("not here")
"""


class TestSuite:
    @pytest.mark.slow
    def test_every_test_gets_its_outcome(
        self, context: Context, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "test_bad.py"
        path.write_text(SUITE, encoding="utf-8")
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a GPU\n", encoding="utf-8")
        monkeypatch.setattr(suite, "files_of", lambda context: [path])
        monkeypatch.setattr(suite, "_TEST_SECONDS", 3.0)
        suite.tests(context)
        results = said()
        words = {each["test"].split("::")[-1]: each["words"] for each in results if "test" in each}
        assert set(words) == {"test_ab", "test_dies", "test_hangs", "test_spoils"}
        assert words["test_dies"] == "exit status 7"
        assert words["test_hangs"] == "no end within 3 s"
        outcomes = next(each["outcomes"] for each in results if "file" in each)
        assert outcomes == {"passed": 2, "failed": 4, "skipped": 1}
        assert "testsuite " in (context.out / "junit.xml").read_text(encoding="utf-8")

    def test_files(self, context: Context) -> None:
        large = Context(context.device, context.out, small=False, ends=context.ends)
        names = [path.name for path in suite.files_of(large)]
        assert {"test_gpu.py", "test_visible_attention_gpu.py"} <= set(names)
        assert len(suite.files_of(context)) == 1
