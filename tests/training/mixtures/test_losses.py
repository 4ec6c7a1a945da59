"""The loss of each set in the metrics is the mean over its sequences since the last reading."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastamr.models import AMRModel, MAMPModel, SkeletonMAEModel, build_model
from fastamr.models.base import PretrainOutput
from fastamr.nn import WeightedReconstructionLoss
from fastamr.training import AdamW, PretrainStep
from fastamr.training.clips.batches import Part
from fastamr.training.clips.clip_streams import ResidentClips
from fastamr.training.clips.mixture import MixtureOrder
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.metrics.metric_ring import MetricReader
from fastamr.training.update.by_set import LossBySet, losses_by_set

from ..update.graphs import ReplayedCalls
from .conftest import OWN, TINY

MODELS = {"amr": AMRModel, "skeleton_mae": SkeletonMAEModel, "mamp": MAMPModel}


class Alone:
    """Computes the loss of each sequence by itself, as the model sees it in the run; one list a batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[float]] = []
        original = WeightedReconstructionLoss.with_sequences

        def with_sequences(loss: Any, prediction: Tensor, clips: Tensor, **given: Any) -> Any:
            found = []
            for place in range(len(clips)):
                one = {
                    name: None if value is None else value[place : place + 1] for name, value in given.items()
                }
                alone = original(
                    loss, prediction[place : place + 1].detach(), clips[place : place + 1], **one
                )
                found.append(alone[0].item())
            self.batches.append(found)
            return original(loss, prediction, clips, **given)

        monkeypatch.setattr(WeightedReconstructionLoss, "with_sequences", with_sequences)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {"mixture": 0.5},
        {"mixture": 0.0, "accumulate": 4, "data_budget": 0.0},
        {"mixture": 0.5, "keep_empty_bodies": True, "on_nan": "skip"},
        {},
    ],
    ids=["plain", "micro-batches", "empty bodies", "shuffled together"],
)
def test_the_mean_over_the_sequences_of_each_set(
    train: Any, files: list[str], monkeypatch: pytest.MonkeyPatch, model: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(PretrainStep, "explain", _unasked(PretrainStep.explain))
    alone = Alone(monkeypatch)
    sets: list[Tensor] = []
    original = LossBySet.__call__
    monkeypatch.setattr(
        LossBySet,
        "__call__",
        lambda self, net, batch, seed: (sets.append(batch[2]), original(self, net, batch, seed))[1],
    )
    found = train("run", files, model=model, **options)
    pieces = options.get("accumulate", 1)
    assert len(alone.batches) == 10 * pieces
    members, losses = torch.cat(sets), torch.tensor(alone.batches, dtype=torch.float64).flatten()
    for line, updates in zip(found["train"], ((0, 4), (4, 8), (8, 10)), strict=True):
        own = slice(*(8 * update for update in updates))
        for place, name in enumerate("abc"):
            expected = losses[own][members[own] == place].mean().item()
            assert line.get(f"loss/{name}", math.nan) == pytest.approx(expected, rel=1e-5, nan_ok=True)


def _unasked(explain: Any) -> Any:
    """The step explains itself by a forward pass without values, which is no update: leave it out."""

    def told(step: Any) -> Any:
        compute, step.compute = step.compute, None
        try:
            return explain(step)
        finally:
            step.compute = compute

    return told


@pytest.mark.parametrize("recorded", [False, True])
def test_recorded_updates_report_the_same(make_skeletons: Any, recorded: bool) -> None:
    """Of a set that a window does not meet nothing is said; with it the loss itself stays the same to the bit."""
    data = make_skeletons(30, with_valid=True)
    body_set = (torch.arange(30) >= 28).long()
    results = []
    for by_set in (True, False):
        torch.manual_seed(0)
        model = build_model("amr", layout="ntu25", **TINY, **OWN["amr"])
        model.set_sequence_losses(by_set)
        order = MixtureOrder([torch.arange(28), torch.arange(28, 30)], 4, 0, 1.0, Part(pieces=2))
        clips = ResidentClips(ClipSampler(data, 8, min_frames=4), order, body_set if by_set else None)
        step = PretrainStep(
            model, AdamW(model.parameters(), lr=1e-3), clips, seed=torch.tensor([7, 0]), accumulate=2, window=3,
            recorder=ReplayedCalls(list(model.parameters())) if recorded else None, graph=recorded,
            **({"compute": LossBySet(["large", "small"])} if by_set else {}),
        )  # fmt: skip
        reader, found = MetricReader(step.metrics), []
        for update in range(12):
            step()
            if update % 3 == 2:
                reader.ask(update + 1)
                reading = reader.take(wait=True)
                assert reading is not None
                drawn = torch.cat([order.batch(each) for each in range(update - 2, update + 1)])
                terms = losses_by_set(reading.terms)
                if by_set:
                    assert ("loss/small" in terms) == bool((drawn >= 28).any())
                    assert all(value > 0 for value in terms.values())
                found.append(reading.losses)
        results.append(found)
    assert results[0] == results[1]


def test_a_model_that_compares_sequences_says_so(train: Any, files: list[str]) -> None:
    found = train("run", files, model="gfp", mixture=0.5)
    assert (
        "no loss of each set: the loss of model 'gfp' is not a mean over single sequences"
        in found["header"][0]["notes"]
    )
    assert not [name for line in found["train"] for name in line if name.startswith("loss/")]
    assert "prediction/level_1" in found["train"][0]


def test_a_sequence_without_a_loss_does_not_count() -> None:
    def model(clips: Tensor, **_: Any) -> PretrainOutput:
        losses = torch.tensor([1.0, float("nan"), 4.0, 2.0])
        return PretrainOutput(torch.tensor(2.0), clips, clips, None, {"std/x": torch.tensor(0.5)}, losses)

    batch = torch.zeros(4, 2, 3, 3), None, torch.tensor([0, 0, 1, 0])
    found = LossBySet(["a", "b", "none"])(model, batch, torch.tensor([0, 0]))  # type: ignore[arg-type]
    terms = losses_by_set({name: float(value) for name, value in found.terms.items()})
    assert terms == {"std/x": 0.5, "loss/a": 1.5, "loss/b": 4.0}


def test_updates_that_are_left_out_do_not_count() -> None:
    assert losses_by_set({"std/x": 1.0, "sum over set a": 6.0, "sequences of set a": 3.0}) == {
        "std/x": 1.0,
        "loss/a": 2.0,
    }
    assert losses_by_set({"sum over set a": 0.0, "sequences of set a": 0.0}) == {}
