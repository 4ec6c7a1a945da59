"""The methods learn: small models on generated motion, a fixed batch with a new mask each update."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastamr.data import apply_missing, synthetic_actions
from fastamr.models import PretrainOutput, build_model
from fastamr.training.clips.sampling import ClipSampler

SMALL = {
    "frames": 24,
    "width": 32,
    "depth": 1,
    "heads": 2,
    "decoder_width": 32,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "mask_ratio": 0.5,
    "stride": 4,  # motion over four frames stands out of the sensor noise
}


@pytest.fixture(scope="module")
def clips() -> Tensor:
    data = apply_missing(synthetic_actions(40, seed=0), ["center"])
    sampler = ClipSampler(data, 24, min_frames=16, crop=(1.0, 1.0), max_angle=0.0)
    return sampler(torch.arange(16), torch.tensor([0, 0]))[0]


def train(name: str, clips: Tensor, updates: int, **options: object) -> list[PretrainOutput]:
    torch.manual_seed(0)
    model = build_model(name, {**SMALL, **options})
    optimizer = torch.optim.AdamW(model.parameter_groups(0.0), lr=4e-3, betas=(0.9, 0.95))
    outputs = []
    for update in range(updates):
        out = model(clips, seed=torch.tensor([1, update]), return_details=True)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        outputs.append(out)
    return outputs


def test_mamp_predicts_hidden_motion(clips: Tensor) -> None:
    """Predicting the mean of each patch costs 11/12, as the variance is unbiased, and less where nothing moves."""
    losses = [out.loss.item() for out in train("mamp", clips, 250)]
    assert sum(losses[-10:]) / 10 < 0.6


@pytest.mark.slow
def test_gfp_predicts_features_that_do_not_collapse(clips: Tensor) -> None:
    """Most of the targets' variance is predicted at each level while it grows again and spans several directions."""
    outputs = train("gfp", clips, 300, levels=(2, 6), target_width=16, target_hidden=32, global_hidden=64)
    assert outputs[-1].loss < 0.15 * outputs[0].loss
    assert outputs[-1].loss < outputs[80].loss
    terms = outputs[-1].terms
    for name, least in {"level_2": 0.6, "level_6": 0.8, "global": 0.8}.items():
        explained = 1 - terms[f"prediction/{name}"] / terms[f"std/{name}"].square()
        assert explained > least, name
        assert terms[f"std/{name}"] > 0.12, name
        assert terms[f"rank/{name}"] > 1.5, name


@pytest.mark.slow
def test_slim_predicts_its_teacher_and_does_not_collapse(clips: Tensor) -> None:
    """Without knowing a view, comparisons that Sinkhorn shares out cost the log of the prototypes' number."""
    sizes = {"prototypes": 32, "head_hidden": 32, "bottleneck": 16, "patch_targets": 8, "local_crops": 2}
    outputs = train(
        "slim",
        clips,
        150,
        **sizes,
        patch_frames=4,
        teacher_momentum=0.95,
        teacher_temperature=0.04,
    )
    chance = math.log(32)
    terms = {name: sum(out.terms[name] for out in outputs[-20:]) / 20 for name in outputs[0].terms}
    assert 0.9 * chance < outputs[0].terms["patch"]
    assert terms["patch"] < 0.8 * chance
    assert terms["class"] < 0.8 * chance
    for name in ("encoder", "teacher"):
        assert terms[f"std/{name}"] > 0.1, name
        assert terms[f"rank/{name}"] > 1.5, name
