"""The decoders that the ablations compare: who sees whom, and that everything learns."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fastamr.models
from fastamr.models import AMRModel, SkeletonModel
from fastamr.testing import random_clips

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIONS = {"layout": "sbu15", "frames": 32, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16}
OPTIONS |= {
    "decoder_depth": 1,
    "decoder_heads": 2,
    "target_patches": 2,
    "guidance_windows": (4,),
    "mask_ratio": 0.75,
}


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr("fastamr.models.registry.MODELS", dict(fastamr.models.MODELS))
    spec = importlib.util.spec_from_file_location(
        "results_decoders", ROOT / "experiments" / "results_decoders.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "results_decoders", module)
    spec.loader.exec_module(module)
    return module


def changed_predictions(model: SkeletonModel) -> list[int]:
    """Which predictions change when the first query does."""
    torch.manual_seed(0)
    tokens = torch.randn(2, 30, 16)
    with torch.no_grad():
        before = model.decoder(tokens)
        model.decoder.queries[0, 0] += 1.0
        after = model.decoder(tokens)
    return (before != after).any(2).any(0).nonzero().flatten().tolist()


@pytest.mark.parametrize("name", ["amr_joint_decoder", "amr_query_attention"])
def test_queries_see_each_other_and_everything_learns(decoders: ModuleType, name: str) -> None:
    model = fastamr.models.build_model(name, **OPTIONS)
    clips = random_clips(2, 32, 15)
    output = model(clips, return_details=True)
    assert output.prediction.shape == (2, 4 * 15, 2 * 4 * 3)
    output.loss.backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []
    assert len(changed_predictions(model)) == 4 * 15


@pytest.mark.parametrize("name", ["amr_joint_decoder", "amr_query_attention"])
def test_only_one_decoder_is_built(decoders: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    own = AMRModel.decoder_class.__init__

    def noted(self: torch.nn.Module, config: object) -> None:
        built.append(type(self).__name__)
        own(self, config)

    monkeypatch.setattr(AMRModel.decoder_class, "__init__", noted)
    model = fastamr.models.build_model(name, **OPTIONS)
    assert built == [type(model.decoder).__name__]
    assert type(model.decoder) is not AMRModel.decoder_class


def test_queries_of_amr_do_not(decoders: ModuleType) -> None:
    assert changed_predictions(AMRModel(**OPTIONS)) == [0]
