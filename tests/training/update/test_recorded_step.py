"""The step recorded as a CUDA graph, by a stand-in for graphs on a CPU."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastamr.models import ASMaModel, SLiMModel
from fastamr.nn.stacks.working_weights import working_weight
from fastamr.training import AdamW, PretrainStep
from fastamr.training.update.optimizer import build_optimizer

from .graphs import ReplayedCalls, noted_copy
from .steps import AUGMENTATION, Regression, build, run, schedule, seed, stream


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate": 2},
        {"dtype": torch.float16},
        {"dtype": torch.bfloat16},
        {"augmentation": AUGMENTATION, "accumulate": 2},
        {"augmentation": AUGMENTATION, "fetched": True},
    ],
)
def test_a_recorded_step_is_the_eager_one_to_the_bit(
    tiny: Any, skeletons: Any, options: dict[str, Any]
) -> None:
    options |= {"schedule": schedule(), "clip_grad": 1.0, "window": 12, "dropout": 0.1}
    eager = build(tiny, skeletons, **options)
    losses = run(eager, 12)
    recorded = build(tiny, skeletons, recorded=True, **options)
    assert run(recorded, 12) == losses
    assert torch.equal(recorded.metrics.values, eager.metrics.values)
    assert recorded.metrics.values[:, 0].tolist() == losses
    assert recorded._call.recordings == 1
    for one, other in zip(eager.model.parameters(), recorded.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("projector", [8, 64])
def test_asmas_step_is_recorded_in_either_form_of_its_loss(skeletons: Any, projector: int) -> None:
    """16 sequences: a projector of 8 correlates feature by feature, one of 64 row by row."""

    def asma(**options: Any) -> PretrainStep:
        torch.manual_seed(0)
        model = ASMaModel(frames=16, width=8, hidden=4, heads=2, projector=projector)
        optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-5, working_dtype=None)
        if options.pop("recorded", False):
            options["recorder"] = ReplayedCalls(list(model.parameters()))
        return PretrainStep(model, optimizer, stream(skeletons, 16), seed=seed(), window=5, **options)

    eager, recorded = asma(), asma(recorded=True)
    losses = run(eager, 5)
    assert run(recorded, 5) == losses
    assert torch.equal(recorded.metrics.values, eager.metrics.values)
    assert (recorded._call.recordings, recorded.graph_reason) == (1, None)
    for one, other in zip(eager.model.parameters(), recorded.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_slims_step_is_recorded_with_its_teacher(skeletons: Any, accumulate: int) -> None:
    """A replay moves the teacher, draws other views and takes other targets, as an eager update does."""

    def slim(**options: Any) -> PretrainStep:
        torch.manual_seed(0)
        sizes = {"prototypes": 16, "head_hidden": 8, "bottleneck": 8, "local_crops": 2}
        model = SLiMModel(frames=16, width=8, depth=1, heads=2, teacher_momentum=0.9, **sizes)
        optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=1e-2, working_dtype=None)
        if options.pop("recorded", False):
            options["recorder"] = ReplayedCalls(list(model.parameters()))
        return PretrainStep(
            model, optimizer, stream(skeletons, 16), seed=seed(), window=6, accumulate=accumulate, **options
        )

    eager, recorded = slim(), slim(recorded=True)
    losses = run(eager, 6)
    assert run(recorded, 6) == losses
    assert len(set(losses)) == 6
    assert torch.equal(recorded.metrics.values, eager.metrics.values)
    assert (recorded._call.recordings, recorded.graph_reason) == (1, None)
    for name, value in eager.model.state_dict().items():
        assert torch.equal(value, recorded.model.state_dict()[name]), name
    teacher, student = eager.model.teacher.head.mlp[0].weight, eager.model.head.mlp[0].weight
    assert not torch.equal(teacher, student)


def test_weights_loaded_between_replays_are_taken_over(tiny: Any, skeletons: Any) -> None:
    """A graph reads weights where they lie; low-precision copies of them must follow."""
    options = {"schedule": schedule(), "dtype": torch.bfloat16, "recorded": True}
    eager, recorded = (
        build(tiny, skeletons, **{**options, "recorded": False}),
        build(tiny, skeletons, **options),
    )
    weights = {name: torch.randn_like(value) for name, value in eager.model.state_dict().items()}
    losses = []
    for step in (eager, recorded):
        run(step, 6)
        step.model.load_state_dict(weights)
        losses.append(run(step, 4))
    assert losses[0] == losses[1]
    assert recorded._call.recordings == 1


def change_decay(step: PretrainStep) -> None:
    step.optimizer.param_groups[0]["weight_decay"] = 0.5


def load_moments(step: PretrainStep) -> None:
    state = copy.deepcopy(step.optimizer.state_dict())
    for moments in state["state"].values():
        moments["exp_avg"].mul_(-3.0)
    step.optimizer.load_state_dict(state)


def stop_dropout(step: PretrainStep) -> None:
    step.model.dropout.eval()


def freeze(step: PretrainStep) -> None:
    step.model.encoder.weight.requires_grad_(False)


@pytest.mark.parametrize("change", [change_decay, load_moments, stop_dropout, freeze])
def test_changes_that_a_graph_cannot_see_are_noticed(tiny: Any, skeletons: Any, change: Any) -> None:
    losses = []
    for recorded in (False, True):
        step = build(tiny, skeletons, recorded=recorded, dropout=0.3)
        torch.manual_seed(1)
        run(step, 6)
        change(step)
        losses.append(run(step, 6))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
@pytest.mark.parametrize("working_dtype", [None, torch.bfloat16])
def test_an_update_that_is_not_finite_is_left_out_on_the_device(
    recorded: bool, accumulate: int, bad: str, working_dtype: torch.dtype | None
) -> None:
    class Normed(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, points: Tensor, values: Tensor) -> Tensor:
            # The root of 0 has an infinite gradient, and the 0 that it is multiplied with makes that NaN.
            kink = (self.layer.bias * (values[:1] != 7)).abs().sqrt().sum() if bad == "gradient" else 0
            return super().forward(self.norm(points), values) + kink

    model = Normed()
    optimizer = AdamW(model.parameters(), lr=torch.tensor(0.05), working_dtype=working_dtype)
    recorder = ReplayedCalls(list(model.parameters())) if recorded else None
    options: dict[str, Any] = {"accumulate": accumulate, "window": 12, "clip_grad": 1.0}
    step = PretrainStep(model, optimizer, skip_not_finite=True, recorder=recorder, **options)

    def state() -> list[Tensor]:
        moments = [value for each in optimizer.state.values() for value in each.values()]
        copies = [copy for each in model.parameters() if (copy := noted_copy(each)) is not None]
        return [each.detach().clone() for each in (*model.parameters(), *model.buffers(), *moments, *copies)]

    for update in range(10):
        points, values = torch.randn(8, 4), torch.randn(8)
        if update == 7:
            values[0] = 7.0 if bad == "gradient" else torch.nan
        before = state()
        loss = step(points, values)
        same = [torch.equal(one, other) for one, other in zip(before, state(), strict=True)]
        assert bool(loss.isnan()) == (update == 7)
        assert all(same) == (update == 7), update
    assert step.metrics.values[:10, 0].isnan().nonzero().tolist() == [[7]]


def test_graph_choices_on_a_cpu(tiny: Any, skeletons: Any) -> None:
    step = build(tiny, skeletons)
    assert step.graph_reason == "the model is on the cpu, and CUDA graphs need an NVIDIA GPU"
    assert build(tiny, skeletons, graph=False).graph_reason == "graph=False"
    with pytest.raises(ValueError, match=r"graph=True, but the model is on the cpu.*pass graph='auto'"):
        build(tiny, skeletons, graph=True)
    with pytest.raises(ValueError, match="graph is 'always', expected 'auto', True or False"):
        build(tiny, skeletons, graph="always")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_failed_recording_goes_on_where_it_was(tiny: Any, skeletons: Any, dtype: torch.dtype) -> None:
    options = {"schedule": schedule(), "clip_grad": 1.0, "dtype": dtype}
    expected = run(build(tiny, skeletons, **options), 10)
    step = build(tiny, skeletons, recorded=True, **options)
    step._call._recorder.fails = RuntimeError("not permitted")  # type: ignore[union-attr]
    with pytest.warns(RuntimeWarning, match="runs without a CUDA graph"):
        assert run(step, 10) == expected
    assert step.graph_reason == "recording failed: RuntimeError: not permitted"
    assert math.isfinite(expected[-1])


class BreaksOff(ReplayedCalls):
    """Fails in the middle of a recording, which has computed nothing on the device."""

    def __init__(self, step: PretrainStep) -> None:
        super().__init__()
        self.step = step

    def record(self, function: Any) -> Any:
        step = self.step
        held = [*step.model.parameters(), step.seed, step.counter, step.metrics.values]
        held += [value for state in step.optimizer.state.values() for value in state.values()]
        before = [tensor.detach().clone() for tensor in held]
        update, step.scaler.update = step.scaler.update, self._fail  # type: ignore[method-assign]
        try:
            function()
        finally:
            step.scaler.update = update  # type: ignore[method-assign]
            with torch.no_grad():
                for tensor, value in zip(held, before, strict=True):
                    tensor.copy_(value)

    def _fail(self) -> None:
        raise RuntimeError("broken off")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_recording_that_breaks_off_leaves_nothing_half_done(
    tiny: Any, skeletons: Any, dtype: torch.dtype
) -> None:
    options = {"schedule": schedule(), "dtype": dtype}
    expected = run(build(tiny, skeletons, **options), 8)
    step = build(tiny, skeletons, recorded=True, **options)
    step._call._recorder = BreaksOff(step)
    with pytest.warns(RuntimeWarning, match="broken off"):
        assert run(step, 8) == expected


class StraightThrough(nn.Module):
    """Computes with the working copy of its weight, as a fused layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 4))

    def forward(self, points: Tensor) -> Tensor:
        copied = working_weight(self.weight, torch.bfloat16).float()
        weight = self.weight + (copied - self.weight).detach()
        return (points @ weight.T - points.sum(1, keepdim=True)).square().mean()

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": [self.weight], "weight_decay": weight_decay}]


def test_working_copies_follow_weights_that_were_loaded_between_replays() -> None:
    losses = []
    for recorded in (False, True):
        torch.manual_seed(3)
        model = StraightThrough()
        optimizer = build_optimizer(
            model, lr=0.05, betas=(0.9, 0.95), weight_decay=0.0, working_dtype=torch.bfloat16
        )
        recorder = ReplayedCalls([model.weight]) if recorded else None
        step = PretrainStep(model, optimizer, recorder=recorder)
        batches = [torch.randn(8, 4) for _ in range(12)]
        found = [step(batch).item() for batch in batches[:6]]
        model.load_state_dict({"weight": torch.full((1, 4), 3.0)})
        found += [step(batch).item() for batch in batches[6:]]
        losses.append(found)
        assert torch.equal(working_weight(model.weight, torch.bfloat16), model.weight.bfloat16())
    assert losses[0] == losses[1]
