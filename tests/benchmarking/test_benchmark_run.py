"""What ``pytest benchmarks/ --benchmark-only`` does around its cases: what it skips, its rounds, its last lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import ops

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
# A plugin for a run in another process: a processor with AVX2 alone, and no matrix unit.
PLAIN_PROCESSOR = """
import fastamr.benchmarking.rungs as rungs, fastamr.devices as devices, fastamr.native as native
devices.processor_features = rungs.processor_features = lambda: {"avx2": True}
native.has_matrix_unit = lambda: False
"""


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """The benchmarks' own helpers."""
    pytest.importorskip("pytest_benchmark")
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import chosen, conftest, forms
    from benchmarks.ops import attention_rivals

    return types.SimpleNamespace(chosen=chosen, conftest=conftest, forms=forms, rivals=attention_rivals)


def run(tmp_path: Path, *words: str) -> str:
    """The output of a run on a processor without instructions for 16-bit products."""
    pytest.importorskip("pytest_benchmark")
    (tmp_path / "plain_processor.py").write_text(PLAIN_PROCESSOR, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "benchmarks",
            "--benchmark-only",
            "-rs",
            "-p",
            "plain_processor",
            *words,
        ],
        cwd=ROOT,
        # pytest-benchmark measures nothing in a worker of pytest-xdist, as which the variables would mark the process.
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_16_bit_case_is_skipped_with_the_reason(tmp_path: Path) -> None:
    """Whatever computes in bfloat16 or float16, by its parameters, its rung or what it says to the clock."""
    cases = "bfloat16 or mae-amp or bf16 or mae-sdpa or tf32 or amr-graph or weight_gradients or medium"
    printed = run(tmp_path, "-k", f"cpu and ({cases}) and not fp32 and not storage")
    assert " passed" not in printed.splitlines()[-1]
    assert re.search(r"[1-9]\d* skipped", printed.splitlines()[-1])
    assert "no instructions for bfloat16 products on this processor" in printed
    reasons = [line for line in printed.splitlines() if line.startswith("SKIPPED")]
    known = (
        "no instructions for bfloat16",
        "the same",
        "needs an NVIDIA GPU",
        "for an NVIDIA GPU",
        "on a CPU",
        "GPU",
    )
    assert [line for line in reasons if not any(words in line for words in known)] == []


@pytest.mark.slow
def test_the_last_lines_are_the_back_ends(tmp_path: Path) -> None:
    """A real run: what auto chooses stands below every other table."""
    printed = run(tmp_path, "-k", "bench_row_norm and cpu and forward and float32")
    lines = printed.splitlines()
    title = next(place for place, line in enumerate(lines) if "what auto chooses" in line)
    assert title > max(place for place, line in enumerate(lines) if line.startswith("Legend"))
    assert re.match(r"row_norm forward +float32 +CPU", lines[title + 2])


@pytest.mark.parametrize("asked", [False, True])
def test_what_takes_long_must_be_asked_for(
    benchmarks: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Before a fixture of the case is made, whatever its scope."""
    item = types.SimpleNamespace(
        get_closest_marker=lambda name: name == "long_case",
        config=types.SimpleNamespace(getoption=lambda name: asked, addinivalue_line=lambda *words: None),
    )
    monkeypatch.setattr(benchmarks.conftest.Clock, "every_case", None)
    benchmarks.conftest.pytest_configure(item.config)
    assert benchmarks.conftest.Clock.every_case is asked
    if asked:
        benchmarks.conftest.pytest_runtest_setup(item)
        return
    with pytest.raises(pytest.skip.Exception, match="takes long: run with --every-case"):
        benchmarks.conftest.pytest_runtest_setup(item)


class TestClock:
    def test_a_dtype_without_instructions_is_not_timed(
        self, benchmarks: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fastamr.devices.processor_features", lambda: {"avx2": True})
        called: list[str] = []
        clock = benchmarks.conftest.Clock(StandIn(), CPU)
        for dtype in (torch.bfloat16, "bfloat16", torch.float16, "float16"):
            with pytest.raises(pytest.skip.Exception, match=r"no instructions for b?float16 products"):
                clock(lambda: called.append("timed"), "op", [1], dtype)
        assert called == []
        clock(lambda: called.append("timed"), "op", [1], torch.float32, rounds=2, warmup=0)
        assert called == ["timed"] * 2

    @pytest.mark.parametrize(
        ("seconds", "every", "rounds"), [(0.0, False, 20), (0.3, False, 6), (9.0, False, 3), (9.0, True, 20)]
    )
    def test_a_long_case_gets_fewer_rounds(
        self,
        benchmarks: types.SimpleNamespace,
        monkeypatch: pytest.MonkeyPatch,
        seconds: float,
        every: bool,
        rounds: int,
    ) -> None:
        now = 0.0

        def work() -> None:
            nonlocal now
            now += seconds + 1e-9

        monkeypatch.setattr(benchmarks.conftest, "time", types.SimpleNamespace(perf_counter=lambda: now))
        benchmark = StandIn()
        monkeypatch.setattr(benchmarks.conftest.Clock, "every_case", every)
        benchmarks.conftest.Clock(benchmark, CPU)(work, "op", [1], "float32")
        assert benchmark.rounds == rounds


class StandIn:
    """Stands for pytest-benchmark's fixture: calls, and counts."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.stats = types.SimpleNamespace(stats=types.SimpleNamespace(median=1.0))
        self.rounds = 0

    def pedantic(self, function: Any, *, rounds: int, warmup_rounds: int) -> None:
        for _ in range(warmup_rounds + rounds):
            function()
        self.rounds = rounds


class TestOpLines:
    def facts(self, backend: str, us: float, auto: str = "cpp", **more: Any) -> tuple[float, dict[str, Any]]:
        return us / 1e6, {
            "op": "row_norm",
            "dtype": "float32",
            "shape": [8, 4],
            "backend": backend,
            "auto": auto,
            **more,
        }

    def test_slower_beyond_noise_is_marked(self, benchmarks: types.SimpleNamespace) -> None:
        cases = [self.facts("cpp", 120.0), self.facts("torch", 100.0), self.facts("reference", 300.0)]
        _, line = benchmarks.chosen.op_lines(cases)
        words = [
            "row_norm",
            "float32",
            "CPU",
            "1",
            "of",
            "1",
            "slower",
            "cpp",
            "120",
            "torch",
            "100",
            "1.20",
            "slower",
        ]
        assert line.split() == [*words, "8", "4"]

    def test_within_noise_is_not(self, benchmarks: types.SimpleNamespace) -> None:
        _, line = benchmarks.chosen.op_lines([self.facts("cpp", 109.0), self.facts("torch", 100.0)])
        assert "slower" not in line

    def test_the_worst_case_is_shown_and_stages_are_cases(self, benchmarks: types.SimpleNamespace) -> None:
        cases = [self.facts("cpp", 50.0, stage="forward"), self.facts("torch", 100.0, stage="forward")]
        cases += [self.facts("cpp", 300.0, stage="backward"), self.facts("torch", 100.0, stage="backward")]
        _, line = benchmarks.chosen.op_lines(cases)
        assert "1 of 2 slower" in line
        assert line.endswith("8 4 backward")
        assert "3.00" in line

    def test_on_a_gpu_the_time_on_the_device_counts(self, benchmarks: types.SimpleNamespace) -> None:
        cases = [self.facts("triton", 900.0, "triton", in_graph=True, device_us_cold=10.0)]
        cases += [self.facts("plain", 90.0, "triton", in_graph=True, device_us_cold=20.0)]
        _, line = benchmarks.chosen.op_lines(cases)
        assert "0.50" in line
        assert " GPU " in line

    def test_what_has_one_form_and_what_is_no_op(self, benchmarks: types.SimpleNamespace) -> None:
        (line,) = benchmarks.chosen.op_lines([self.facts("cpp", 1.0), (1.0, {"op": "prepare", "auto": None})])
        assert line == "nothing to compare with here: row_norm float32"
        assert benchmarks.chosen.op_lines([]) == []
        _, line = benchmarks.chosen.op_lines(
            [self.facts("plain", 5.0, "reference"), self.facts("torch", 4.0, "reference")]
        )
        assert "not timed" in line

    def test_auto_is_asked_about_the_call_itself(self, benchmarks: types.SimpleNamespace) -> None:
        """Even where the case names another back end; the problem's size counts."""
        q = torch.zeros(1, 300, 3, 1, 8)
        found = benchmarks.chosen.automatic(
            "visible_attention", lambda: ops.visible_attention(q, backend="reference"), CPU, torch.float32
        )
        assert found == "sdpa"  # more keys than the extension takes
        assert benchmarks.chosen.automatic("prepare", time.time, CPU, "") is None
        assert benchmarks.chosen.automatic("select_visible", time.time, CPU, "int32") == "reference"


def test_ladder_lines(benchmarks: types.SimpleNamespace) -> None:
    times = {"mae-fp32": 3.0, "mae-sdpa-fp32": 2.0, "amr-fp32": 0.4, "fastamr-fp32": 0.2, "fastmae-fp32": 1.0}
    common = {"device": "CPU of mine", "shape": [8, 120, 25, 3], "op": "pre-training step"}
    cases = [(seconds, {**common, "rung_name": name, "rung": name}) for name, seconds in times.items()]
    assert benchmarks.chosen.ladder_lines([*cases, (1.0, {"op": "encode"})]) == [
        "CPU of mine, 8 x 120 x 25 x 3 (S x T x V x C)",
        "fastamr-fp32 against SkeletonMAE as released: 15.0x (mae-fp32)",
        "fastamr-fp32 against the strongest PyTorch SkeletonMAE of this run: 10.0x (mae-sdpa-fp32)",
        "fastamr-fp32 against the best plain-PyTorch AMR of this run: 2.00x (amr-fp32)",
        "fastamr-fp32 against SkeletonMAE by the same step of fastamr: 5.00x (fastmae-fp32)",
        "AMR against SkeletonMAE, both fast (fastamr-fp32, fastmae-fp32): 5.00x",
    ]
    assert benchmarks.chosen.ladder_lines([]) == []


class TestAttentionRivals:
    """PyTorch's other attentions compute the op; where they do not run, the reason is said."""

    @pytest.fixture(params=["self", "cross"])
    def inputs(self, request: pytest.FixtureRequest) -> list[torch.Tensor]:
        if request.param == "self":
            return [torch.randn(3, 7, 3, 2, 16, requires_grad=True)]
        return [torch.randn(3, 5, 2, 16, requires_grad=True), torch.randn(3, 7, 2, 2, 16, requires_grad=True)]

    def compare(self, found: torch.Tensor, inputs: list[torch.Tensor]) -> None:
        wide = [each.detach().double().requires_grad_() for each in inputs]
        truth = ops.visible_attention(*wide, backend="reference")
        upstream = torch.randn(truth.shape)
        torch.testing.assert_close(found.double(), truth, rtol=1e-4, atol=1e-5)
        gradients = torch.autograd.grad(found, inputs, upstream)
        wanted = torch.autograd.grad(truth, wide, upstream.double())
        torch.testing.assert_close([each.double() for each in gradients], list(wanted), rtol=1e-4, atol=1e-5)

    @pytest.mark.filterwarnings("ignore:flex_attention called without")
    def test_flex(self, benchmarks: types.SimpleNamespace, inputs: list[torch.Tensor]) -> None:
        """The form that is not compiled, which runs anywhere; on a CPU it has no backward."""
        flex = pytest.importorskip("torch.nn.attention.flex_attention")
        inputs = [each.detach() for each in inputs]
        found = benchmarks.rivals.flex(inputs, flex.flex_attention)
        truth = ops.visible_attention(*[each.double() for each in inputs], backend="reference")
        torch.testing.assert_close(found.double(), truth, rtol=1e-4, atol=1e-5)

    def test_varlen_by_its_documented_meaning(
        self, benchmarks: types.SimpleNamespace, inputs: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        varlen = pytest.importorskip("torch.nn.attention.varlen")

        def stand_in(
            q: Any, k: Any, v: Any, starts_q: Any, starts_k: Any, most_q: int, most_k: int
        ) -> torch.Tensor:
            assert starts_q.dtype == starts_k.dtype == torch.int32
            assert (most_q, most_k) == (int(starts_q.diff().max()), int(starts_k.diff().max()))
            assert (int(starts_q[-1]), int(starts_k[-1])) == (len(q), len(k))
            parts = []
            for place in range(len(starts_q) - 1):
                rows, keys = (slice(int(s[place]), int(s[place + 1])) for s in (starts_q, starts_k))
                each = (x.transpose(0, 1) for x in (q[rows], k[keys], v[keys]))
                parts.append(torch.nn.functional.scaled_dot_product_attention(*each).transpose(0, 1))
            return torch.cat(parts)

        monkeypatch.setattr(varlen, "varlen_attn", stand_in)
        self.compare(benchmarks.rivals.varlen(inputs), inputs)

    def test_reasons(self, benchmarks: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        why_not = benchmarks.rivals.why_not
        assert why_not("varlen", CPU, torch.float32) == "varlen_attn runs on a GPU only"
        assert "no backward on a CPU" in why_not("flex", CPU, torch.float32)
        gpu = torch.device("cuda")
        assert why_not("varlen", gpu, torch.float32) == "varlen_attn takes 16-bit values only"
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        assert why_not("varlen", gpu, torch.bfloat16) == "varlen_attn needs compute capability 8.0"
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        assert why_not("varlen", gpu, torch.bfloat16) is None
        assert why_not("flex", gpu, torch.bfloat16) is None
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
        assert why_not("varlen", gpu, torch.bfloat16).startswith(
            "this PyTorch has no torch.nn.attention.varlen"
        )
