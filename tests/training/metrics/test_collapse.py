from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.models import build_model
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.clips.batches import BatchOrder
from fastamr.training.clips.clip_streams import ResidentClips
from fastamr.training.clips.sampling import ClipSampler
from fastamr.training.metrics.collapse import CollapseGuard
from fastamr.training.update.optimizer import build_optimizer
from fastamr.training.update.step import PretrainStep

HEALTHY = {"std/a": 0.3, "rank/a": 9.0, "std/b": 0.1, "rank/b": 3.0, "prediction/a": 0.0}
SMALL = {
    "frames": 24,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "decoder_width": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "levels": [3],
    "target_width": 8,
    "target_hidden": 16,
    "global_hidden": 16,
}


def test_guard_tells_once_what_collapsed_and_again_after_a_recovery() -> None:
    guard = CollapseGuard(64)
    assert guard.check(HEALTHY) == []
    (message,) = guard.check({**HEALTHY, "std/b": 0.002})
    assert "'b' have collapsed (standard deviation 0.002, below 0.01)" in message
    assert guard.check({**HEALTHY, "std/b": 0.001}) == []
    assert guard.check(HEALTHY) == []
    assert len(guard.check({**HEALTHY, "std/a": 1e-4, "rank/a": 1.0, "rank/b": 1.01})) == 2


def test_guard_does_not_judge_the_rank_of_few_sequences() -> None:
    assert CollapseGuard(2).check({**HEALTHY, "rank/a": 1.0}) == []
    assert len(CollapseGuard(2).check({**HEALTHY, "std/a": 0.0})) == 1
    assert len(CollapseGuard(8).check({**HEALTHY, "rank/a": 1.0})) == 1


def test_step_keeps_the_mean_of_the_terms_of_the_micro_batches(make_skeletons: Any) -> None:
    data = make_skeletons(16)
    steps = {}
    for accumulate in (1, 2):
        torch.manual_seed(0)
        model = build_model("gfp", SMALL)
        optimizer = build_optimizer(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
        sampler = ClipSampler(data, 24, min_frames=8)
        order = BatchOrder(torch.arange(16), 16, seed=0)
        step = PretrainStep(
            model,
            optimizer,
            ResidentClips(sampler, order),
            seed=torch.tensor([7, 0]),
            accumulate=accumulate,
        )
        clips, _ = sampler(order.batch(0), step.seed)
        parts = [
            model(part, seed=step.seed + torch.tensor([0, index]), return_details=True)
            for index, part in enumerate(clips.chunk(accumulate))
        ]
        expected = {name: sum(out.terms[name] for out in parts) / accumulate for name in parts[0].terms}
        loss = step()
        torch.testing.assert_close(loss, sum(out.loss for out in parts).detach() / accumulate)
        torch.testing.assert_close(step.terms, expected)
        first = step.terms
        step()
        assert step.terms["prediction/global"] != first["prediction/global"]
        steps[accumulate] = first
    assert steps[1].keys() == steps[2].keys()


def run(out: Path, data: Any, *, updates: int = 50, **architecture: Any) -> list[dict[str, Any]]:
    config = PretrainConfig(
        model="gfp",
        architecture={**SMALL, **architecture},
        out=str(out),
        preprocess=[],
        batch_size=16,
        min_frames=8,
        updates=updates,
        log_every=5,
        lr=2e-2,
        min_lr=2e-2,
        tensorboard=False,
        progress=False,
        device="cpu",
    )
    pretrain(config, data=data)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_reports_all_terms_and_stays_silent_while_features_are_well(
    tmp_path: Path, make_skeletons: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = run(tmp_path / "run", make_skeletons(40))
    readings = [line for line in lines if line["kind"] == "train"]
    assert len(readings) == 10
    for term in ("prediction/level_3", "covariance/global", "variance/global", "std/encoder", "rank/global"):
        assert all(isinstance(line[term], float) for line in readings)
    assert not [line for line in lines if line["kind"] == "warning"]


def test_a_run_without_regularisation_collapses_and_warns(tmp_path: Path, make_skeletons: Any) -> None:
    data = make_skeletons(40)
    with pytest.warns(RuntimeWarning, match=r"update \d+: the features of 'level_3' have collapsed"):
        lines = run(tmp_path / "run", data, updates=120, covariance_weight=0.0, variance_weight=0.0)
    told = [line for line in lines if line["kind"] == "warning"]
    assert all("collapsed" in line["message"] and line["update"] > 0 for line in told)
    assert [line["std/level_3"] for line in lines if line["kind"] == "train"][-1] < 0.01
