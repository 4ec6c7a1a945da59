"""A model of any skeleton that is fed one layout is the model of that layout with the same embeddings."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

import fastamr
from fastamr.models import SkeletonModel
from fastamr.skeleton import get_layout
from fastamr.testing import relative_error

from .twins import MASKED, PLAIN, WAYS, clip_over_body, keep_over_body, over_body, small, twins

SEED = torch.tensor([3, 1])


def clips_of(layout: str, sequences: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(sequences)
    joints = get_layout(layout).num_joints
    return torch.randn(sequences, 24, joints, channels, generator=generator).cumsum(1) * 0.02


def gradients(
    model: SkeletonModel,
    clips: Tensor,
    keep: Tensor,
    valid: Tensor | None,
    stack: str,
    *,
    autocast: bool = False,
) -> dict[str, Tensor]:
    model.zero_grad()
    chosen = nullcontext() if stack == "auto" else fastamr.backend(transformer_stack=stack)
    with chosen, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(clips, keep=keep, valid=valid)
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in model.named_parameters() if p.grad is not None}}


@pytest.mark.parametrize("gaps", [False, True], ids=["all seen", "gaps"])
@pytest.mark.parametrize("layout", ["ntu25", "kinect20", "coco17"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MASKED)
def test_loss_and_gradients(name: str, way: str, layout: str, gaps: bool) -> None:
    channels = 2 if layout == "coco17" else 3
    model, twin = (one.double() for one in twins(name, layout, way, channels=channels))
    clips = clips_of(layout, 4, channels).double()
    valid = torch.rand(clips.shape[:3], generator=torch.Generator().manual_seed(0)) > 0.02 if gaps else None
    keep = model.choose_visible(clips, seed=SEED, valid=valid)
    over, seen = clip_over_body(clips, valid, model.layout)
    truth = gradients(model, clips, keep, valid, "auto")
    found = gradients(twin, over, keep_over_body(keep, model.layout), seen, "auto")
    assert model.config.visible == twin.config.visible
    assert set(found) == set(truth)
    for key, value in truth.items():
        expected = value if key == "loss" else over_body(value, model, key)
        assert (found[key] - expected).norm() <= 1e-9 * expected.norm() + 1e-13, key


@pytest.mark.parametrize("stack", ["fused", "reference"])
@pytest.mark.parametrize("name", MASKED)
def test_both_stacks_in_float32_and_bfloat16(name: str, stack: str) -> None:
    """As near to the other model as rounding allows; where a whole set lacks joints the fused stack stays in use."""
    model, twin = twins(name, "ntu25", "static")
    clips = clips_of("ntu25", 6)
    keep = model.choose_visible(clips, seed=SEED)
    over, seen = clip_over_body(clips, None, model.layout)
    own = keep_over_body(keep, model.layout)
    for autocast, most in ((False, 2e-5), (True, 0.03)):
        truth = gradients(model, clips, keep, None, stack, autocast=autocast)
        found = gradients(twin, over, own, seen, stack, autocast=autocast)
        assert relative_error(found.pop("loss"), truth.pop("loss")) < most
        flat = [
            torch.cat(
                [
                    values[key].flatten() if own_ else over_body(values[key], model, key).flatten()
                    for key in truth
                ]
            )
            for own_, values in ((True, found), (False, truth))
        ]
        assert relative_error(*flat) < most


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_is_refused_by_a_stack_that_must_be_fused(name: str) -> None:
    _, twin = twins(name, "ntu25", "masked")
    over, seen = clip_over_body(clips_of("ntu25", 2), None, get_layout("ntu25"))
    with fastamr.backend(transformer_stack="fused"):
        if name == "amr":
            assert torch.isfinite(twin(over, valid=seen, seed=SEED))
            return
        with pytest.raises(RuntimeError, match="sequences lack some of the tokens"):
            twin(over, valid=seen, seed=SEED)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("layout", ["ntu25", "kinect20"])
def test_features(name: str, way: str, layout: str) -> None:
    model, twin = (one.double().eval() for one in twins(name, layout, way))
    clips = clips_of(layout, 5).double()
    valid = torch.rand(clips.shape[:3], generator=torch.Generator().manual_seed(1)) > 0.05
    over, seen = clip_over_body(clips, valid, model.layout)
    truth = model.features(clips, valid=valid)
    assert relative_error(twin.features(over, valid=seen), truth) < 1e-10
    joints = seen.any(0).any(0).nonzero()[:, 0].tolist()
    assert relative_error(twin.features(over, valid=seen, joints=joints), truth) < 1e-10
    tokens = model.encode(clips, valid=valid).unflatten(1, (-1, model.layout.num_joints))
    encoded = twin.encode(over, valid=seen).unflatten(1, (-1, twin.layout.num_joints))
    assert relative_error(encoded[:, :, torch.tensor(joints)][..., :], tokens[:, :, order(model)]) < 1e-10
    gone = torch.ones(twin.layout.num_joints, dtype=torch.bool).index_fill(0, torch.tensor(joints), False)
    assert not encoded[:, :, gone].any()


def order(model: SkeletonModel) -> Tensor:
    """The joints of a model in the order of their parts in ``body``."""
    from .twins import places

    return places(model.layout).argsort()


@pytest.mark.parametrize("name", MASKED)
def test_visible_tokens_are_those_of_joints_that_exist(name: str) -> None:
    for way in WAYS:
        _, twin = twins(name, "kinect20", way)
        over, seen = clip_over_body(clips_of("kinect20", 16), None, get_layout("kinect20"))
        clips, valid = twin.prepare(over, seen)
        keep = twin.choose_visible(clips, seed=SEED, valid=valid).long()
        assert keep.shape[1] == small(name, layout="kinect20").config.visible
        there = seen.any(1).gather(1, keep % twin.layout.num_joints)
        assert there.all()
        assert all(len(row.unique()) == keep.shape[1] for row in keep)


def test_few_whole_tokens_never_bring_in_a_joint_that_is_not_there() -> None:
    twin = small("amr", layout="body", typical_joints=20)
    over, seen = clip_over_body(clips_of("kinect20", 8), None, get_layout("kinect20"))
    seen[:, 1::4] = False  # one frame of each patch: no token is whole
    clips, valid = twin.prepare(over, seen)
    keep = twin.choose_visible(clips, seed=SEED, valid=valid).long()
    assert seen.any(1).gather(1, keep % twin.layout.num_joints).all()


def test_k_is_a_share_of_the_typical_tokens() -> None:
    assert (
        small(
            "amr", layout="body", frames=120, target_patches=6, mask_ratio=0.9, typical_joints=25
        ).config.visible
        == 75
    )
    joints = ("head", "neck")
    assert small("amr", layout="body", present=joints).config.present_tokens == 12
    for wrong, text in (
        ({"present": ("haed",)}, "did you mean 'head'"),
        ({"present": joints, "typical_joints": 3}, "typical_joints=3: expected 1 to 2"),
        ({"present": (*joints, "neck")}, "names a joint twice"),
    ):
        with pytest.raises(ValueError, match=text):
            small("amr", layout="body", **wrong)
