from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastamr.nn.learning_rate import learning_rate
from fastamr.training import PretrainStep
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.update.optimizer import build_optimizer, learning_rate_tensor
from fastamr.training.update.precision import autocast_dtype, matmul_precision_of, precision_name

from .graphs import ReplayedCalls
from .steps import Regression, build, run, schedule, seed, stream


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
