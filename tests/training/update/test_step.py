from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastamr.models import ASMaModel, SLiMModel
from fastamr.nn.learning_rate import learning_rate
from fastamr.nn.stacks.working_weights import working_weight
from fastamr.skeleton import get_layout
from fastamr.training import AdamW, PretrainStep
from fastamr.training.clips.augmentation import Augmentation
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import PrefetchedClips, ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.update.optimizer import build_optimizer, learning_rate_tensor
from fastamr.training.update.precision import autocast_dtype, matmul_precision_of, precision_name
from fastamr.training.update.schedule import LearningRateSchedule

from .graphs import ReplayedCalls, noted_copy

CPU = torch.device("cpu")
AUGMENTATION = Augmentation.of(
    get_layout("ntu25"), 3, mirror=0.5, scale_jitter=0.2, drop_limbs=0.3, noise=0.01, project=0.3
)


def seed(key: int = 7) -> Tensor:
    return torch.tensor([key, 0])


def stream(
    data: Any,
    batch: int,
    *,
    fetched: bool = False,
    augmentation: Augmentation | None = None,
    device: torch.device = CPU,
) -> Any:
    order = BatchOrder(torch.arange(data.num_bodies), batch, seed=0)
    settings: dict[str, Any] = {"min_frames": 8, "augmentation": augmentation}
    if fetched:
        return PrefetchedClips(ClipSampler(data, 16, **settings), order, device)
    return ResidentClips(ClipSampler(data.to(device), 16, **settings), order)


def build(tiny: Any, data: Any, *, batch: int = 16, **options: Any) -> PretrainStep:
    torch.manual_seed(0)
    model = tiny(tiny.Config(dropout=options.pop("dropout", 0.0)))
    dtype = options.get("dtype", torch.float32)
    copies = None if dtype == torch.float32 else dtype
    optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, working_dtype=copies)
    if options.pop("recorded", False):
        options["recorder"] = ReplayedCalls(list(model.parameters()))
    augmentation = options.pop("augmentation", None)
    clips = stream(data, batch, fetched=options.pop("fetched", False), augmentation=augmentation)
    return PretrainStep(model, optimizer, clips, seed=seed(), **options)


def run(step: PretrainStep, updates: int) -> list[float]:
    return [step().item() for _ in range(updates)]


def schedule(device: str = "cpu", **changes: Any) -> LearningRateSchedule:
    recipe = {"lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "total": 20, **changes}
    return LearningRateSchedule(**recipe, device=device)


def test_step_samples_learns_and_advances_the_seed_in_place(tiny: Any, skeletons: Any) -> None:
    step = build(tiny, skeletons)
    held = step.seed
    before = step.model.decoder.weight.clone()
    losses = [step() for _ in range(30)]
    assert losses[0].dtype == torch.float32
    assert losses[0].shape == ()
    assert not losses[0].requires_grad
    assert step.seed is held
    assert held.tolist() == [7, 30]
    assert not torch.equal(before, step.model.decoder.weight)
    assert torch.stack(losses[-5:]).mean() < torch.stack(losses[:5]).mean()


def test_first_update_is_adamw_on_the_models_own_gradient(tiny: Any, skeletons: Any) -> None:
    step = build(tiny, skeletons)
    learning_rate_tensor(step.optimizer).fill_(0.01)
    clips, _ = stream(skeletons, 16).sampler(step.clips.order.batch(0), step.seed)
    weight = step.model.decoder.weight
    before = weight.detach().clone()
    (gradient,) = torch.autograd.grad(step.model(clips, seed=step.seed), weight)
    step()
    expected = before * (1 - 0.01 * 0.05) - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)


class Mean(nn.Module):
    """A model without masks: its loss is a mean over sequences, so micro-batches must add up to the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(25))
        self.sizes: list[int] = []

    def forward(self, clips: Tensor, **_: Any) -> Tensor:
        self.sizes.append(len(clips))
        return ((clips[..., 0] * self.weight) ** 2).mean() * 100

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": [self.weight], "weight_decay": weight_decay}]


@pytest.mark.parametrize("clip_grad", [None, 0.5])
def test_accumulation_gives_the_gradient_of_the_whole_batch(skeletons: Any, clip_grad: float | None) -> None:
    results = []
    for accumulate in (1, 4):
        model = Mean()
        optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
        clips = stream(skeletons, 12)
        step = PretrainStep(model, optimizer, clips, seed=seed(), accumulate=accumulate, clip_grad=clip_grad)
        loss = step()
        assert model.sizes == [12 // accumulate] * accumulate
        assert step.seed.tolist() == [7, accumulate]
        results.append((loss, model.weight.detach()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_valid_reaches_the_model_in_micro_batches(tiny: Any, make_skeletons: Any) -> None:
    step = build(tiny, make_skeletons(8, with_valid=True), accumulate=2, batch=8)
    step()
    clips, valid = step.model.seen
    assert clips.shape == (4, 16, 25, 3)
    assert valid.shape == (4, 16, 25)
    assert valid.dtype == torch.bool


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_on_the_cpu_and_keeps_float32_weights(
    tiny: Any, skeletons: Any, dtype: torch.dtype
) -> None:
    exact, half = build(tiny, skeletons), build(tiny, skeletons, dtype=dtype)
    losses = [step() for step in (exact, half)]
    assert losses[1].dtype == torch.float32
    assert losses[1] == pytest.approx(losses[0].item(), rel=0.02)
    assert losses[1] != losses[0]
    assert half.model.decoder.weight.dtype == torch.float32
    assert torch.isfinite(half.model.decoder.weight).all()


def test_precision_names() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) == torch.float32
    assert autocast_dtype("bfloat16", cpu) == torch.bfloat16
    assert autocast_dtype("float16", cpu) == torch.float16
    assert autocast_dtype("tf32", cpu) == torch.float32
    assert (precision_name("auto", cpu), precision_name("tf32", cpu)) == ("float32", "tf32")
    assert (matmul_precision_of("tf32"), matmul_precision_of("float32"), matmul_precision_of("auto")) == (
        "high",
        None,
        None,
    )


def test_products_are_rounded_during_an_update_only(tiny: Any, skeletons: Any) -> None:
    seen = []
    step = build(tiny, skeletons, matmul_precision="high")
    step.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    before = torch.get_float32_matmul_precision()
    step()
    assert seen == ["high"]
    assert torch.get_float32_matmul_precision() == before != "high"


def test_schedule_is_the_formula_to_float32_rounding() -> None:
    for recipe in (
        {},
        {"warmup": 0},
        {"warmup": 19},
        {"lr": 1e-3, "min_lr": 0.0, "warmup": 300, "total": 3000},
    ):
        table = schedule(**recipe)
        total = recipe.get("total", 20)
        found = torch.stack([table(torch.tensor(update)) for update in range(total)])
        settings = {"lr": 1e-2, "min_lr": 1e-3, "warmup": 5, "total": 20, **recipe}
        exact = torch.tensor(
            [learning_rate(update, **settings) for update in range(total)], dtype=torch.float64
        )
        torch.testing.assert_close(found.double(), exact, rtol=2**-24, atol=1e-45)
        assert table(torch.tensor(total + 7)) == found[-1]


def test_the_step_sets_the_rate_of_its_update(tiny: Any, skeletons: Any) -> None:
    step = build(tiny, skeletons, schedule=schedule())
    rates = []
    for _ in range(8):
        step()
        rates.append(learning_rate_tensor(step.optimizer).item())
    expected = [learning_rate(update, lr=1e-2, min_lr=1e-3, warmup=5, total=20) for update in range(8)]
    assert rates == pytest.approx(expected, rel=1e-7)


def plain_loop(
    tiny: Any, data: Any, updates: int, *, clip_grad: float | None
) -> tuple[list[float], nn.Module]:
    """The same training written by hand, with PyTorch's own parts."""
    torch.manual_seed(0)
    model = tiny(tiny.Config(dropout=0.2))
    optimizer = torch.optim.AdamW(model.parameter_groups(0.05), lr=1e-3, betas=(0.9, 0.95))
    order, sampler = (
        BatchOrder(torch.arange(data.num_bodies), 16, seed=0),
        ClipSampler(data, 16, min_frames=8),
    )
    losses = []
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(update, lr=1e-2, min_lr=1e-3, warmup=5, total=20)
        clips, valid = sampler(order.batch(update), torch.tensor([7, update]))
        loss = model(clips, seed=torch.tensor([7, update]), valid=valid)
        optimizer.zero_grad()
        loss.backward()
        if clip_grad is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
        optimizer.step()
        losses.append(loss.item())
    return losses, model


@pytest.mark.parametrize("clip_grad", [None, 0.3])
@pytest.mark.parametrize(
    "how", [{}, {"fetched": True}, {"recorded": True}, {"recorded": True, "fetched": True}]
)
def test_the_step_is_the_loop_written_by_hand(
    tiny: Any, skeletons: Any, clip_grad: float | None, how: dict[str, bool]
) -> None:
    expected, model = plain_loop(tiny, skeletons, 15, clip_grad=clip_grad)
    step = build(tiny, skeletons, dropout=0.2, schedule=schedule(), clip_grad=clip_grad, **how)
    assert run(step, 15) == pytest.approx(expected, rel=2e-5)
    for found, wanted in zip(step.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (step.update, step.counter.item(), step.seed.tolist()) == (15, 15, [7, 15])


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


def test_fetched_and_resident_steps_agree_to_the_bit(tiny: Any, make_skeletons: Any) -> None:
    data = make_skeletons(20, bodies=2, with_valid=True)
    assert run(build(tiny, data, fetched=True), 10) == run(build(tiny, data), 10)


def test_a_step_continues_from_any_update(tiny: Any, skeletons: Any) -> None:
    whole = build(tiny, skeletons, schedule=schedule())
    run(whole, 9)
    later = build(tiny, skeletons, schedule=schedule())
    later.model.load_state_dict(whole.model.state_dict())
    later.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    later.seed.copy_(whole.seed)
    later.continue_from(9)
    assert run(later, 5) == run(whole, 5)


def test_nothing_is_read_back_in_the_loop(tiny: Any, skeletons: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step = build(tiny, skeletons, schedule=schedule(), clip_grad=1.0, accumulate=2, window=4)
    step()
    step()  # an epoch's order is made on the host in these
    # On a CPU the values of indices are looked at; on a GPU they are not.
    for module in ("fastamr.ops.common.checks", "fastamr.ops.attention.checks"):
        monkeypatch.setattr(f"{module}.are_values_checked", lambda values: False)
    read: list[str] = []
    for name in (
        "item",
        "tolist",
        "numpy",
        "cpu",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "nonzero",
    ):
        method = getattr(Tensor, name)

        def spied(self: Tensor, *args: Any, _name: str = name, _method: Any = method, **options: Any) -> Any:
            read.append(_name)
            return _method(self, *args, **options)

        monkeypatch.setattr(Tensor, name, spied)
    for _ in range(3):
        step()
    assert read == []


class Regression(nn.Module):
    """A module of its own kind: two inputs, a scalar loss, no masks and no seed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, points: Tensor, values: Tensor) -> Tensor:
        return (self.layer(points)[:, 0] - values).square().mean()


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_own_module_learns_from_the_tensors_it_is_given(recorded: bool, accumulate: int) -> None:
    model = Regression()
    twin = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.05), weight_decay=0.0, fused=True)
    recorder = ReplayedCalls(list(model.parameters())) if recorded else None
    step = PretrainStep(model, optimizer, accumulate=accumulate, recorder=recorder, window=4)
    plain = torch.optim.AdamW(twin.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(12):
        points = torch.randn(8, 4)
        values = points.sum(1)
        loss = step(points, values).clone()
        expected = twin(points, values)
        plain.zero_grad()
        expected.backward()
        plain.step()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    assert step.metrics.values.shape == (4, 1)
    assert step.update == 12


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


def test_leaving_updates_out_needs_our_optimizer() -> None:
    model = Regression()
    with pytest.raises(ValueError, match=r"skip_not_finite needs fastamr.training.AdamW"):
        PretrainStep(model, torch.optim.AdamW(model.parameters()), skip_not_finite=True)


def test_inputs_where_they_do_not_belong(tiny: Any, skeletons: Any) -> None:
    with pytest.raises(TypeError, match="draws its clips, got 1 inputs"):
        build(tiny, skeletons)(torch.ones(2))
    model = Regression()
    step = PretrainStep(model, torch.optim.AdamW(model.parameters()), accumulate=3)
    with pytest.raises(TypeError, match="has no source of clips"):
        step()
    with pytest.raises(ValueError, match=r"input 0 has shape \(8, 4\), .* accumulate=3 divides"):
        step(torch.ones(8, 4), torch.ones(8))


def test_a_loss_that_is_no_scalar() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"loss of shape \(5, 2\), expected a scalar"):
        PretrainStep(model, torch.optim.AdamW(model.parameters()))(torch.ones(5, 3))


def test_a_schedule_needs_rates_on_the_device() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="learning rate of group 0 is a number, expected a tensor on cpu"):
        PretrainStep(model, torch.optim.AdamW(model.parameters()), schedule=schedule())


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
