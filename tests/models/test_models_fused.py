"""Every model with fused stacks of blocks against the same model block by block."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr.models import SkeletonModel, build_model, load_pretrained
from fastamr.nn import CrossAttentionStack, TransformerStack
from fastamr.testing import random_clips, relative_error

SMALL = {
    "frames": 24,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "decoder_width": 32,
    "decoder_depth": 2,
    "decoder_heads": 2,
}
OWN: dict[str, dict[str, object]] = {
    "amr": {"target_patches": 3},
    "asma": {"backbone": "transformer", "projector": 16, "align_depth": 1},
    "gfp": {"levels": (2, 6), "target_width": 16, "target_hidden": 24, "global_hidden": 32},
    "mamp": {},
    "skeleton_mae": {},
}
SEED = torch.tensor([1, 0])


def small(name: str, **options: object) -> SkeletonModel:
    return build_model(name, {**SMALL, **OWN[name], **options})


def step(model: SkeletonModel, clips: Tensor, backend: str, *, autocast: bool = False) -> dict[str, Tensor]:
    """Loss and all gradients."""
    model.zero_grad()
    with (
        fastamr.backend(transformer_stack=backend),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        loss = model(clips, seed=SEED)
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("name", OWN)
def test_loss_and_gradients_equal_plain_blocks_in_float64(name: str) -> None:
    model, clips = small(name).double(), random_clips(4, 24, dtype=torch.float64)
    plain, fused = step(model, clips, "reference"), step(model, clips, "fused")
    assert plain.keys() == fused.keys()
    scale = torch.cat([value.flatten() for value in plain.values()]).norm()
    for key, value in plain.items():
        assert (fused[key] - value).norm() <= 1e-10 * value.norm() + 1e-13 * scale, key


@pytest.mark.parametrize("name", OWN)
def test_bfloat16_autocast_by_norms(name: str) -> None:
    model, clips = small(name), random_clips(6, 24)
    truth = step(copy.deepcopy(model).double(), clips.double(), "reference")
    errors = {}
    for backend in ("fused", "reference"):
        found = step(model, clips, backend, autocast=True)
        assert all(found[key].dtype == torch.float32 for key in found)
        gradients = [
            torch.cat([each[key].double().flatten() for key in truth if key != "loss"])
            for each in (found, truth)
        ]
        errors[backend] = (relative_error(found["loss"], truth["loss"]), relative_error(*gradients))
    for fused, plain in zip(errors["fused"], errors["reference"], strict=True):
        assert fused < max(3 * plain, 0.02)


def nodes(loss: Tensor) -> set[str]:
    """Names of the functions that a backward would run."""
    names, rest, seen = set(), [loss.grad_fn], set()
    while rest:
        node = rest.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            rest += [following for following, _ in node.next_functions]
    return names


@pytest.mark.extension
@pytest.mark.parametrize("name", OWN)
def test_fused_is_the_default(name: str) -> None:
    """One function for each stack, no layer norm or GELU beside it; the option gives plain blocks."""
    model, clips = small(name), random_clips(4, 24)
    default, plain = model(clips, seed=SEED), small(name, blocks="reference")
    plain.load_state_dict(model.state_dict())
    loss = plain(clips, seed=SEED)
    torch.testing.assert_close(loss, default, rtol=1e-4, atol=0)
    stacks = {"SelfStackBackward", "CrossStackBackward"} if name == "amr" else {"SelfStackBackward"}
    assert stacks <= nodes(default)
    assert not nodes(default) & {"NativeLayerNormBackward0"}
    assert nodes(loss) & {"NativeLayerNormBackward0"}
    assert not nodes(loss) & stacks


@pytest.mark.parametrize("name", OWN)
def test_encoding_without_gradients(name: str) -> None:
    model, clips = small(name).double().eval(), random_clips(3, 24, dtype=torch.float64)
    found = {}
    for backend in ("fused", "reference"):
        with torch.inference_mode(), fastamr.backend(transformer_stack=backend):
            found[backend] = model.features(clips)
    torch.testing.assert_close(found["fused"], found["reference"])
    model.float()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        features = model.features(clips.float())
    assert features.dtype == torch.float32
    assert relative_error(features, found["reference"]) < 0.03


@pytest.mark.parametrize("name", ["amr", "gfp"])
def test_recompute_changes_no_bit(name: str) -> None:
    model, clips = small(name), random_clips(4, 24)
    kept = step(model, clips, "fused")
    kept = {key: value.clone() for key, value in kept.items()}
    model.set_recompute()
    stacks = [each for each in model.modules() if isinstance(each, (TransformerStack, CrossAttentionStack))]
    assert len(stacks) >= 2
    assert all(stack.recompute for stack in stacks)
    again = step(model, clips, "fused")
    assert all(torch.equal(again[key], value) for key, value in kept.items())
    model.set_recompute(False)
    assert not any(stack.recompute for stack in stacks)


@pytest.mark.parametrize("name", OWN)
def test_checkpoints_know_nothing_of_it(name: str, tmp_path: Path) -> None:
    """The same parameter names either way, and configurations written before the option existed."""
    model = small(name, blocks="reference")
    assert list(model.state_dict()) == list(small(name, blocks="fused").state_dict())
    values = model.config.to_dict()
    assert values.pop("blocks") == "reference"
    assert type(model.config).from_dict(values).blocks == "auto"
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.config.blocks == "reference"
    with pytest.raises(ValueError, match="blocks"):
        small(name, blocks="fusedd")
