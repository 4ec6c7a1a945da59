"""What the optimizer refuses, with a message that says so, and without changing anything."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastamr.training.update.adamw import AdamW

from .small_training import OPTIONS, groups_of, make_model, train


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"amsgrad": True}, "amsgrad=True is not supported"),
        ({"maximize": True}, "maximize=True is not supported"),
        ({"differentiable": True}, "differentiable=True is not supported"),
        ({"working_dtype": torch.float32}, "working_dtype=torch.float32 must be"),
        ({"lr": -1.0}, "lr=-1.0 must be at least 0"),
        ({"eps": -1.0}, "eps=-1.0 must be at least 0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0 must be at least 0"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\) must be"),
        ({"clip_grad": -1.0}, "clip_grad=-1.0 must be above 0"),
    ],
)
def test_options_that_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AdamW(make_model().parameters(), **{**OPTIONS, **options})


def test_parameters_and_gradients_that_are_refused() -> None:
    with pytest.raises(TypeError, match="keep it in float32 and pass working_dtype"):
        AdamW(make_model(torch.bfloat16).parameters())
    with pytest.raises(TypeError, match="complex64"):
        AdamW([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="one optimizer per device"):
        AdamW([nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, device="meta"))])
    first, second = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    with pytest.raises(ValueError, match=r"betas=\(0.8, 0.9\) differs from the first group's"):
        AdamW([{"params": [first]}, {"params": [second], "betas": (0.8, 0.9)}])
    optimizer = AdamW([first])
    with pytest.raises(ValueError, match="all groups share eps"):
        optimizer.add_param_group({"params": [second], "eps": 1.0})
    assert len(optimizer.param_groups) == 1
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = AdamW(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"gradients\[0\] is torch.sparse_coo"):
        optimizer.step()


def test_states_that_are_refused_change_nothing() -> None:
    model = make_model()
    optimizer = AdamW(groups_of(model), **OPTIONS)
    train(model, optimizer, range(2))
    good = copy.deepcopy(optimizer.state_dict())

    def spoiled(**changes: object) -> dict:
        return {**good, "param_groups": [{**group, **changes} for group in good["param_groups"]]}

    shape = copy.deepcopy(good)
    shape["state"][0]["exp_avg"] = torch.zeros(2, 2)
    gap = copy.deepcopy(good)
    del gap["state"][0]["exp_avg_sq"]
    for state, words in (
        (spoiled(amsgrad=True), "amsgrad=True"),
        (spoiled(decoupled_weight_decay=False), "whose weight decay is not decoupled"),
        ({**good, "param_groups": good["param_groups"][:1]}, "groups of"),
        (shape, r"exp_avg of parameter 0 is \(2, 2\)"),
        (gap, "state of parameter 0 holds"),
    ):
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict(state)
    for number, state in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, good["state"][number][name]) for name, value in state.items())
    rate = torch.tensor(0.1)
    shared = AdamW([{**group, "lr": rate} for group in groups_of(make_model())], **{**OPTIONS, "lr": rate})
    good["param_groups"][1]["lr"] = 0.7
    with pytest.raises(ValueError, match="share one lr tensor were saved with"):
        shared.load_state_dict(good)


def test_a_first_gradient_inside_a_capture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = AdamW([parameter])
    optimizer.state.clear()

    class Elsewhere:
        device, shape = torch.device("cuda", 0), (2,)

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="first gradient inside a CUDA graph's capture"):
        optimizer._state(Elsewhere())  # type: ignore[arg-type]
