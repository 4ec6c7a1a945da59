"""What ``PretrainStep.explain()`` says, held against what an update does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastamr
from fastamr import native
from fastamr.benchmarking.step import build_fast_step
from fastamr.models import MODELS
from fastamr.nn import TransformerBlock, TransformerStack
from fastamr.ops.common.backends import Choice, Problem, choose, explain, watched
from fastamr.training import AdamW, PretrainStep
from fastamr.training.update.explanation import Explanation

from .graphs import ReplayedCalls

needs_extension = pytest.mark.extension
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"frames": 24, "width": 32, "depth": 1, "heads": 2}
DECODER = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "amr": {**SMALL, **DECODER, "target_patches": 2, "guidance_windows": (4,)},
    "gfp": {**SMALL, **DECODER, "levels": (2,), "target_hidden": 8, "global_hidden": 8, "target_width": 8},
    "asma": {**SMALL, "projector": 8, "backbone": "transformer"},
    "slim": {**SMALL, "prototypes": 16, "head_hidden": 8, "bottleneck": 8},
}


def build(name: str = "amr", precision: str = "float32", **options: Any) -> PretrainStep:
    settings = {**OPTIONS.get(name, {**SMALL, **DECODER}), **options}
    return build_fast_step(name, settings, CPU, sequences=4, precision=precision)._step


def made_choices(step: PretrainStep) -> set[tuple[str, str]]:
    """The ops of a real update and their back ends."""
    with watched() as calls:
        step()
    return {(op, choose(op, problem, name)) for op, problem, name in calls if op != "transformer_stack"}


@needs_extension
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_it_names_the_ops_and_back_ends_that_an_update_runs(name: str, precision: str) -> None:
    step = build(name, precision)
    before = step.explain()
    assert before.unknown is None
    assert {(each.op, each.backend) for each in before.ops} == made_choices(step)
    assert all(each == Choice(each.op, "fused") for each in before.stacks)
    assert bool(before.stacks) == (name != "slim")  # whose blocks are no stack
    assert step.explain() == before


def frozen(step: PretrainStep) -> list[Any]:
    tensors = [*step.model.state_dict().values(), *step.metrics.values, step.seed, step.counter]
    tensors += [value for state in step.optimizer.state.values() for value in state.values()]
    return [torch.get_rng_state().tolist(), [(each.tolist(), each._version) for each in tensors]]


@pytest.mark.parametrize(
    ("name", "precision", "options"),
    [("amr", "bfloat16", {}), ("asma", "float32", {"backbone": "stgcn", "width": 8, "hidden": 4})],
)
def test_nothing_changes(name: str, precision: str, options: dict[str, Any]) -> None:
    """Weights, working copies, batch statistics, the optimizer and the random state are as they were."""
    step, untouched = (build(name, precision, **options) for _ in range(2))
    for _ in range(2):
        before = frozen(step)
        step.explain()
        assert frozen(step) == before
        assert torch.equal(step(), untouched())


def with_hook(step: PretrainStep) -> None:
    step.model.encoder.blocks[0].mlp.register_forward_hook(lambda *_: pytest.fail("the hook was called"))


def with_other_activation(step: PretrainStep) -> None:
    step.model.encoder.blocks[0].mlp.act = nn.ReLU()


@needs_extension
@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (with_hook, "a hook sits on a Mlp inside, .*: remove it"),
        (with_other_activation, "a block holds a ReLU, which the fused stack does not know"),
    ],
)
def test_a_stack_says_why_it_is_not_fused(alter: Callable[[PretrainStep], None], reason: str) -> None:
    step = build()
    alter(step)
    (encoder, decoder) = step.explain().stacks
    assert (encoder.op, encoder.backend, list(encoder.faster)) == ("encoder.blocks", "reference", ["fused"])
    assert decoder == Choice("decoder.blocks", "fused")
    (line,) = step.explain().lines()[1:]
    assert re.fullmatch(f"encoder.blocks: block by block instead of fused: {reason}", line)


def test_float64() -> None:
    stack, norm = TransformerStack(TransformerBlock(16, 2) for _ in range(2)), nn.LayerNorm(16)
    (mixed,) = stack.explain(torch.zeros(2, 3, 16, dtype=torch.float64), norm=norm)
    if native.why_not("cpu") is None:
        assert "parameters of torch.float32 on cpu meet activations of torch.float64" in mixed.faster["fused"]
    model = nn.Linear(3, 1).double()
    found = PretrainStep(Scalar(model), AdamW(model.parameters())).explain(torch.ones(2, 3).double())
    assert found.ops[0].op == "adamw_update"
    assert found.ops[0].backend == "reference"
    assert "it covers float32 parameters, not float64" in found.ops[0].faster["cpp"]


def test_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.why_not("cpu") is not None:
        pytest.skip("plain blocks run without the extension, traced or not")
    step = build()
    monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    assert "the code is being traced" in step.explain().stacks[0].faster["fused"]


def test_a_compiled_model_is_left_to_the_compiler() -> None:
    step = build()
    step.model = torch.compile(step.model, backend="eager")  # type: ignore[assignment]
    assert "torch.compile took the model over" in (step.explain().unknown or "")
    step = build()
    step.model.encoder.compile(backend="eager")
    found = step.explain()
    assert (found.stacks, [each.op for each in found.ops]) == ([], ["adamw_update"])
    assert found.lines()[-1].startswith(
        "the model's own parts are not known: RuntimeError: torch.compile took"
    )


@needs_extension
def test_the_users_choice_is_the_reason() -> None:
    step = build()
    with fastamr.backend("reference"):
        lines = step.explain().lines()
    assert any(
        "FASTAMR_BACKEND or fastamr.backend names 'reference'; leave it at 'auto'" in each for each in lines
    )
    assert any(
        each.startswith("encoder.blocks, decoder.blocks: block by block instead of fused") for each in lines
    )
    step = build(attention="reference", blocks="reference")
    found = step.explain()
    assert found.stacks[0].faster["fused"] == "the caller names 'reference'; leave it at 'auto'"
    (attention,) = [each for each in found.ops if each.op == "visible_attention"]
    assert attention.faster == {"sdpa": "the caller names 'reference'; leave it at 'auto'"}


def test_without_the_extension() -> None:
    """In a process of its own, as the extension is looked for once: a line for the stacks, one for the optimizer."""
    code = (
        "import torch\n"
        "from fastamr.benchmarking.step import build_fast_step\n"
        f"step = build_fast_step('amr', {OPTIONS['amr']!r}, torch.device('cpu'), sequences=4)._step\n"
        "print('\\n'.join(step.explain().lines()))"
    )
    environment = {**os.environ, "FASTAMR_BUILD": "none"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    first, *slow = run.stdout.splitlines()
    assert first.startswith("as fast as it gets on this CPU: eager updates")
    reason = "FASTAMR_BUILD=none leaves the cpu extension out"
    assert [reason in line for line in slow] == [True, False], "said once"
    assert slow[1] == "adamw_update: reference instead of cpp: for the reason above"
    assert [line.partition(":")[0] for line in slow] == ["encoder.blocks, decoder.blocks", "adamw_update"]


def test_recorded_or_not() -> None:
    def build_recorded(**options: Any) -> PretrainStep:
        model = nn.Linear(3, 1)
        return PretrainStep(Scalar(model), AdamW(model.parameters()), **options)

    recorder = ReplayedCalls()
    step, inputs = build_recorded(recorder=recorder), torch.ones(2, 3)
    assert "updates recorded as a CUDA graph" in step.explain(inputs).lines()[0]
    recorder.fails = RuntimeError("not permitted")
    for _ in range(3):
        step(inputs)
    with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
        step(inputs)
    assert (
        "updates are not recorded as a CUDA graph: recording failed: RuntimeError: not permitted; "
        "graph=True stops with the error" in step.explain().lines()
    )
    assert (
        build_recorded()
        .explain(inputs)
        .lines()[0]
        .startswith("as fast as it gets on this CPU: eager updates (CUDA graphs need an NVIDIA GPU)")
    )
    off = Explanation("cuda", "graph=False", True, [], [])
    assert off.lines()[1] == "updates are not recorded as a CUDA graph: graph=False; leave it at 'auto'"


class Scalar(nn.Module):
    """Any module with a scalar loss."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, points: Tensor) -> Tensor:
        return self.inner(points).square().mean()


class Careless(nn.Module):
    """Keeps a tensor of its first call, has a hook with a memory, and draws."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale, self.seen = nn.Linear(3, 1), None, list[Tensor]()
        self.inner.register_forward_hook(lambda *given: self.seen.append(given[-1]))

    def forward(self, points: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = torch.rand(3)
        return self.inner(points * self.scale).square().mean()


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 1)

    def forward(self, points: Tensor) -> Tensor:
        return self.inner(points).mean() * float(points.sum())


def test_any_module_with_a_scalar_loss() -> None:
    model = Careless()
    step = PretrainStep(model, AdamW(model.parameters(), lr=1e-3))
    unknown = step.explain()
    assert "the inputs are not known before the first update: pass them to explain()" in (
        unknown.unknown or ""
    )
    assert [each.op for each in unknown.ops] == ["adamw_update"]
    assert step.explain(torch.ones(2, 3)).unknown is None
    assert (model.scale, model.seen) == (None, [])
    step(torch.ones(2, 3))
    assert step.explain().unknown is None
    assert len(model.seen) == 1
    assert torch.isfinite(step(torch.ones(2, 3)))


def test_a_model_that_reads_values_leaves_its_parts_open() -> None:
    model = Reads()
    found = PretrainStep(model, torch.optim.SGD(model.parameters())).explain(torch.ones(2, 3))
    assert (found.stacks, found.ops) == ([], [])
    assert found.lines()[1].startswith("the model's own parts are not known: DataDependent")


def test_micro_batches_are_asked_for_in_their_size() -> None:
    class Sized(Scalar):
        def forward(self, points: Tensor) -> Tensor:
            assert points.shape == (2, 3)
            return super().forward(points)

    model = Sized(nn.Linear(3, 1))
    step = PretrainStep(model, AdamW(model.parameters()), accumulate=3)
    assert step.explain(torch.ones(6, 3)).unknown is None
    step(torch.ones(6, 3))
    assert step.explain().unknown is None


def test_it_is_json() -> None:
    found = build().explain()
    assert json.loads(json.dumps(found.to_dict()))["graph"] == found.graph


def test_choices_say_which_faster_back_ends_there_are_on_the_device() -> None:
    """What another device has, and what is slower here, is no reason; a choice by name is one."""
    assert explain("sample_clips", Problem("cpu", torch.float32)) == Choice("sample_clips", "reference")
    found = explain("linear_gelu", Problem("cpu", torch.float32), "reference")
    assert list(found.faster) == ["cpp"]
    assert "triton" not in explain("linear_gelu", Problem("cuda", torch.float32)).faster
    assert "triton" in explain("sample_clips", Problem("cuda", torch.float64)).faster
    small = {"work": 10, "size": 16, "keys": 3}
    assert explain("visible_attention", Problem("cpu", torch.float32, sizes=small)) == Choice(
        "visible_attention", "sdpa"
    )


def test_a_gpu_without_measurements_is_told_what_to_do() -> None:
    words = "fastamr pretrain --tune, checks and times them here"
    assert any(words in line for line in Explanation("cuda", None, True, [], []).lines())
    assert not any(words in line for line in Explanation("cuda", None, True, [], [], tuning="12ab").lines())
    assert not any(words in line for line in Explanation("cpu", None, False, [], []).lines())


def test_measured_choices_are_told_apart() -> None:
    choices = [Choice("row_norm", "torch", source="measured"), Choice("row_linear", "torch")]
    (line,) = Explanation("cpu", None, False, [], choices).lines()
    assert "torch: row_norm (measured by fastamr tune); torch: row_linear" in line
