"""The optimizer: drop-in for torch.optim.AdamW, in both directions, with copies that stay true."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import fastamr
from fastamr.nn.stacks.working_weights import working_weight
from fastamr.training.update.adamw import AdamW
from fastamr.training.update.optimizer import build_optimizer, learning_rate_tensor

from .small_training import OPTIONS, groups_of, make_model, train


def assert_alike(one: nn.Module, other: nn.Module, rtol: float, atol: float) -> None:
    for found, expected in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, (1e-11, 1e-13)), (torch.float32, (1e-4, 1e-5))]
)
def test_trains_as_torch_does(dtype: torch.dtype, tolerance: tuple[float, float]) -> None:
    mine, theirs = make_model(dtype), make_model(dtype)
    found = train(mine, AdamW(groups_of(mine), **OPTIONS), range(40))
    expected = train(theirs, torch.optim.AdamW(groups_of(theirs), **OPTIONS, foreach=False), range(40))
    assert found == pytest.approx(expected, rel=tolerance[0])
    assert_alike(mine, theirs, *tolerance)
    assert found[-1] < found[0]


@pytest.mark.parametrize("theirs", [{"foreach": False}, {"foreach": True}, {"fused": True}])
def test_states_go_both_ways(theirs: dict) -> None:
    """Train with one class, hand its state to the other, and go on as if nothing had happened."""
    for first, second in ((AdamW, torch.optim.AdamW), (torch.optim.AdamW, AdamW), (AdamW, AdamW)):
        one, other = make_model(torch.float64), make_model(torch.float64)
        options = {AdamW: OPTIONS, torch.optim.AdamW: {**OPTIONS, **theirs}}
        whole = first(groups_of(one), **options[first])
        train(one, whole, range(5))
        other.load_state_dict(one.state_dict())
        taken = second(groups_of(other), **{**options[second], "lr": 1.0})
        taken.load_state_dict(copy.deepcopy(whole.state_dict()))
        assert float(taken.param_groups[0]["lr"]) == OPTIONS["lr"]
        assert taken.param_groups[1]["weight_decay"] == 0.0
        found, expected = train(other, taken, range(5, 10)), train(one, whole, range(5, 10))
        assert found == pytest.approx(expected, rel=1e-11)
        assert_alike(other, one, 1e-10, 1e-12)
        steps = {float(state["step"]) for state in taken.state.values()}
        assert steps == {10.0}


def test_loading_keeps_every_address() -> None:
    """What a recorded graph writes to: state, steps, learning rate; also where the loaded state has gaps."""
    model = make_model()
    optimizer = AdamW(groups_of(model), **OPTIONS)
    saved = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, range(3))
    tensors = [
        *(value for state in optimizer.state.values() for value in state.values()),
        *(group["lr"] for group in optimizer.param_groups),
    ]
    del saved["state"][1]
    saved["param_groups"][0]["lr"] = 0.5
    optimizer.load_state_dict(saved)
    now = [
        *(optimizer.state[each][name] for group in optimizer.param_groups for each in group["params"]
          for name in ("step", "exp_avg", "exp_avg_sq")),
        *(group["lr"] for group in optimizer.param_groups),
    ]  # fmt: skip
    assert sorted(map(id, tensors)) == sorted(map(id, now))
    assert all(not state["step"] and not state["exp_avg"].any() for state in optimizer.state.values())
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_loading_does_not_keep_what_was_given() -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), **OPTIONS)
    saved = optimizer.state_dict()
    other = AdamW(make_model().parameters(), **OPTIONS)
    other.load_state_dict(saved)
    train(model, optimizer, range(2))
    assert all(state["step"] == 0 for state in other.state.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_working_copies_are_true_after_every_step(dtype: torch.dtype) -> None:
    model = make_model()
    optimizer = AdamW(groups_of(model), **OPTIONS, working_dtype=dtype)
    copies = [working_weight(each, dtype) for each in model.parameters()]
    for number in range(3):
        for parameter, kept in zip(model.parameters(), copies, strict=True):
            assert torch.equal(kept, parameter.detach().to(dtype))
            assert working_weight(parameter, dtype) is kept, "no cast is made"
            assert kept.data_ptr() % 64 == 0
        train(model, optimizer, [number])
    storages = {kept.untyped_storage().data_ptr() for kept in copies}
    assert len(storages) == len(optimizer.param_groups), "one buffer for each group"
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def test_copies_left_behind_are_refreshed() -> None:
    model, other = make_model(), make_model()
    optimizer = AdamW(model.parameters(), **OPTIONS, working_dtype=torch.bfloat16)
    copies = [working_weight(each, torch.bfloat16) for each in model.parameters()]
    train(other, torch.optim.AdamW(other.parameters(), **OPTIONS), range(3))
    assert not optimizer.refresh_working_copies()
    model.load_state_dict(other.state_dict())
    assert optimizer.refresh_working_copies()
    for parameter, kept in zip(model.parameters(), copies, strict=True):
        assert torch.equal(kept, parameter.detach().to(torch.bfloat16))
    assert not optimizer.refresh_working_copies()
    train(model, optimizer, [0])
    assert not optimizer.refresh_working_copies(), "a step leaves its copies true"


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_clipping_is_over_all_groups(clip: float) -> None:
    mine, theirs = make_model(torch.float64), make_model(torch.float64)
    optimizer = AdamW(groups_of(mine), **OPTIONS, clip_grad=clip)
    peer = torch.optim.AdamW(groups_of(theirs), **OPTIONS)
    inputs = torch.randn(8, 5, dtype=torch.float64)
    assert optimizer.gradient_norm is None
    for _ in range(3):
        for model in (mine, theirs):
            model.zero_grad()
            model(inputs).square().sum().backward()
        before = [each.grad.clone() for each in mine.parameters()]
        optimizer.step()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        peer.step()
        torch.testing.assert_close(optimizer.gradient_norm, norm.float(), rtol=1e-6, atol=0)
        for parameter, gradient in zip(mine.parameters(), before, strict=True):
            assert torch.equal(parameter.grad, gradient)
    assert_alike(mine, theirs, 1e-9, 1e-12)


class Scaler(torch.amp.GradScaler):
    """A scaler that starts at a scale given, and says what it did."""

    def __init__(self, scale: float) -> None:
        super().__init__("cpu", init_scale=scale, growth_interval=2)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_with_a_gradient_scaler(clip: float | None) -> None:
    """Against torch.optim.AdamW with unscale_ and clipping; one overflow in between skips its update in both."""
    mine, theirs = make_model(), make_model()
    optimizer = AdamW(mine.parameters(), **OPTIONS, clip_grad=clip)
    peer = torch.optim.AdamW(theirs.parameters(), **OPTIONS)
    scalers = Scaler(64.0), Scaler(64.0)
    for number in range(6):
        inputs = torch.randn(8, 5)
        for model, each, scaler in ((mine, optimizer, scalers[0]), (theirs, peer, scalers[1])):
            each.zero_grad()
            loss = model(inputs).square().mean()
            scaler.scale(loss * (torch.inf if number == 3 else 1.0)).backward()
            if each is peer and clip is not None:
                scaler.unscale_(each)
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(each)
            scaler.update()
        assert scalers[0].get_scale() == scalers[1].get_scale()
    assert not hasattr(optimizer, "found_inf")
    assert all(state["step"] == 5 for state in optimizer.state.values())
    assert_alike(mine, theirs, 1e-4, 1e-5)


def test_a_skipped_step_leaves_no_copy_behind() -> None:
    """A model is loaded, and the next update overflows before any layer asked for its copies."""
    model = make_model()
    optimizer = AdamW(model.parameters(), **OPTIONS, working_dtype=torch.bfloat16)
    train(model, optimizer, [0])
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    optimizer.found_inf = torch.ones(())  # type: ignore[attr-defined]
    optimizer.step()
    for parameter in model.parameters():
        assert torch.equal(working_weight(parameter, torch.bfloat16), parameter.detach().to(torch.bfloat16))


def test_an_empty_group_is_allowed() -> None:
    """As in torch.optim.AdamW: a model may have no parameter of a kind."""
    model = make_model()
    for groups in ([{"params": []}, *groups_of(model)], [*groups_of(model), {"params": []}]):
        optimizer = AdamW(groups, **OPTIONS, working_dtype=torch.bfloat16)
        other = torch.optim.AdamW([dict(group) for group in groups], **OPTIONS)
        train(model, optimizer, [0])
        other.load_state_dict(optimizer.state_dict())
        optimizer.load_state_dict(other.state_dict())
        train(model, optimizer, [1])
        assert {state["step"].item() for state in optimizer.state.values()} == {2.0}


def test_parameters_without_gradients_keep_their_own_count() -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), **OPTIONS, working_dtype=torch.bfloat16)
    first, *rest = model.parameters()
    first.requires_grad_(False)
    train(model, optimizer, range(2))
    assert optimizer.state[first]["step"] == 0
    assert all(optimizer.state[each]["step"] == 2 for each in rest)
    optimizer.zero_grad()
    optimizer.step()
    assert all(optimizer.state[each]["step"] == 2 for each in rest), "a step without gradients does nothing"


def test_a_parameter_that_is_trained_later_gets_its_state_and_copy() -> None:
    model = make_model()
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    optimizer = AdamW(model.parameters(), **OPTIONS, working_dtype=torch.bfloat16)
    assert first not in optimizer.state
    first.requires_grad_(True)
    train(model, optimizer, range(2))
    assert optimizer.state[first]["step"] == 2
    assert torch.equal(working_weight(first, torch.bfloat16), first.detach().to(torch.bfloat16))


def test_groups_with_their_own_learning_rates_and_schedulers() -> None:
    mine, theirs = make_model(torch.float64), make_model(torch.float64)
    optimizers = []
    for model, kind, more in ((mine, AdamW, {}), (theirs, torch.optim.AdamW, {"foreach": False})):
        groups = groups_of(model)
        groups[1]["lr"] = 2.0**-4
        optimizer = kind(groups, **OPTIONS, **more)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        for number in range(5):
            train(model, optimizer, [number])
            scheduler.step()
        optimizers.append(optimizer)
    assert [float(group["lr"]) for group in optimizers[0].param_groups] == [2.0**-8, 2.0**-6]
    assert_alike(mine, theirs, 1e-10, 1e-12)
    optimizers[0].param_groups[0]["lr"] = 0.0
    optimizers[0].param_groups[1]["lr"] = torch.tensor(0.0, dtype=torch.float64)
    before = [each.detach().clone() for each in mine.parameters()]
    train(mine, optimizers[0], [9])
    assert all(torch.equal(one, other) for one, other in zip(mine.parameters(), before, strict=True))


def test_a_closure() -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 5)).square().sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


def test_copied_with_its_model() -> None:
    model = make_model()
    optimizer = AdamW(model.parameters(), **OPTIONS, working_dtype=torch.bfloat16, clip_grad=0.5)
    train(model, optimizer, range(2))
    other, twin = copy.deepcopy((model, optimizer))
    assert train(other, twin, range(2, 5)) == train(model, optimizer, range(2, 5))
    assert_alike(other, model, 0, 0)
    assert torch.equal(twin.gradient_norm, optimizer.gradient_norm)
    for parameter in other.parameters():
        assert torch.equal(working_weight(parameter, torch.bfloat16), parameter.detach().to(torch.bfloat16))


def test_pytorchs_implementation_flags_are_taken() -> None:
    for flags in ({"foreach": True}, {"fused": True}, {"fused": False, "capturable": True}):
        model, plain = make_model(), make_model()
        train(model, AdamW(model.parameters(), **OPTIONS, **flags), range(2))
        train(plain, AdamW(plain.parameters(), **OPTIONS), range(2))
        assert_alike(model, plain, 0, 0)


def test_build_optimizer() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def parameter_groups(self, weight_decay: float) -> list[dict]:
            return [
                {"params": [self.layer.weight], "weight_decay": weight_decay},
                {"params": [self.layer.bias], "weight_decay": 0.0},
            ]

    model = Model()
    options = {"lr": 0.1, "betas": (0.9, 0.95), "weight_decay": 0.05}
    optimizer = build_optimizer(model, **options, working_dtype=torch.bfloat16, clip_grad=2.0)
    assert isinstance(optimizer, AdamW)
    assert optimizer.clip_grad == 2.0
    assert all(group["lr"] is learning_rate_tensor(optimizer) for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]
    assert working_weight(model.layer.weight, torch.bfloat16).dtype == torch.bfloat16
    assert len(optimizer.state) == 2, "the state is there before the first step"


def test_reference_and_extension_train_alike() -> None:
    losses = []
    for backend in ("reference", "auto"):
        model = make_model()
        with fastamr.backend(adamw_update=backend):
            losses.append(train(model, AdamW(groups_of(model), **OPTIONS, clip_grad=0.1), range(20)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.gpu
def test_training_in_a_graph_goes_on_after_loading() -> None:
    """Forward, backward and step in one graph with fresh gradients; a state loaded between two replays counts."""
    model, plain = make_model().cuda(), make_model().cuda()
    optimizer, peer = (AdamW(each.parameters(), **OPTIONS, clip_grad=0.1) for each in (model, plain))
    inputs = torch.randn(8, 5, device="cuda")

    def update(one: nn.Module, other: AdamW) -> None:
        other.zero_grad()
        one(inputs).square().mean().backward()
        other.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            update(model, optimizer)
    torch.cuda.current_stream().wait_stream(stream)
    for _ in range(3):
        update(plain, peer)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()
    with torch.cuda.graph(graph):
        update(model, optimizer)
    for _ in range(2):
        for _ in range(4):
            graph.replay()
            update(plain, peer)
        assert_alike(model, plain, 0, 0)
        for one, other in ((model, optimizer), (plain, peer)):
            one.load_state_dict(weights)
            other.load_state_dict(saved)
