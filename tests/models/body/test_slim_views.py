"""SLiM on any skeleton: its views hide, mirror and lengthen what a sequence has, and see nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastamr import SLiMModel
from fastamr.models.parts.slim_views import Draws
from fastamr.skeleton import BODY, SkeletonLayout, get_layout
from fastamr.testing import relative_error

from .test_mixed_batches import mixed
from .test_parity import clips_of
from .twins import WAYS, clip_over_body, over_body, places, small, twins

SEED = torch.tensor([3, 1])
# The tree of ntu25 has the tip of a hand hang on the thumb, that of body on the hand.
TIPS = ("left_hand_tip", "right_hand_tip", "left_thumb", "right_thumb")


def moved(model: SLiMModel) -> SLiMModel:
    """A teacher that is no longer the student."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def draws_over_body(keep: Tensor, model: SLiMModel, twin: SLiMModel) -> Tensor:
    """The draws of a model of a layout in the numbers of its twin."""
    draws, own, joints = model.view_maker.split(keep), model.config, model.layout.num_joints
    present = list(twin.config.present_joints)
    place = torch.tensor([present.index(joint) for joint in places(model.layout).tolist()])

    def token(tokens: Tensor) -> Tensor:
        return tokens // joints * len(present) + place[tokens % joints]

    tubes = torch.zeros(*draws.tubes.shape[:2], twin.config.tubes, dtype=torch.int64)
    every = torch.arange(own.tokens)
    tubes[:, :, torch.tensor(twin.config.tube_of_token)[token(every)]] = draws.tubes[
        :, :, torch.tensor(own.tube_of_token)[every]
    ]
    pair = torch.minimum(model.view_maker.mirror_of, torch.arange(joints))
    bones = torch.zeros(*draws.bones.shape[:2], len(present), dtype=torch.int64)
    bones[:, :, place] = draws.bones[:, :, pair]
    made = Draws(tubes, token(draws.targets), draws.starts, draws.mirrored, bones)
    return torch.cat([part.flatten(1) for part in made], dim=1).int()


def still_tips(keep: Tensor, model: SLiMModel) -> Tensor:
    """Draws that leave the bones of thumbs and tips of the hands as they are."""
    draws = model.view_maker.split(keep)
    tips = [model.layout.index(joint) for joint in TIPS if joint in model.layout.joints]
    bones = draws.bones.clone()
    bones[:, :, tips] = 0
    return torch.cat([part.flatten(1) for part in draws._replace(bones=bones)], dim=1).int()


@pytest.mark.parametrize("gaps", [False, True], ids=["all seen", "gaps"])
@pytest.mark.parametrize("layout", ["ntu25", "kinect20", "coco17"])
@pytest.mark.parametrize("summary", ["class", "mean"])
@pytest.mark.parametrize("way", WAYS)
def test_loss_and_gradients(way: str, summary: str, layout: str, gaps: bool) -> None:
    """Those of the model of the layout; coco17's tree is another one than body's, so its bones stay as they are."""
    options = {"channels": 2, "bone_scale": 0.0} if layout == "coco17" else {"bone_scale": 0.3}
    model, twin = twins("slim", layout, way, summary=summary, **options)
    moved(model.double()), twin.double()
    state = {key: over_body(value, model, key) for key, value in model.state_dict().items()}
    twin.load_state_dict(state)
    clips = clips_of(layout, 4, model.config.channels).double()
    valid = torch.rand(clips.shape[:3], generator=torch.Generator().manual_seed(0)) > 0.02 if gaps else None
    prepared = model.prepare(clips, valid)
    keep = still_tips(model.choose_visible(prepared[0], seed=SEED, valid=prepared[1]), model)
    assert 0 < model.view_maker.split(keep).mirrored.sum() < 16
    over, seen = clip_over_body(clips, valid, model.layout)
    truth = model(clips, keep=keep, valid=valid, return_details=True)
    found = twin(over, keep=draws_over_body(keep, model, twin), valid=seen, return_details=True)
    assert relative_error(found.loss, truth.loss) < 1e-11
    for name, value in truth.terms.items():
        assert relative_error(found.terms[name], value) < 1e-9, name
    for output in (truth, found):
        output.loss.backward()
    gradients = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        expected = over_body(parameter.grad, model, name)
        assert (gradients[name].grad - expected).norm() <= 1e-9 * expected.norm() + 1e-13, name


def views_of(model: SLiMModel, clips: Tensor, valid: Tensor) -> tuple:
    clips, valid = model.prepare(clips, valid)
    keep = model.choose_visible(clips, seed=SEED, valid=valid)
    clips, valid = model.present_part(clips, valid)
    draws = model.view_maker.split(keep)
    return (
        draws,
        model.view_maker(clips, valid, draws, model.joints_of_each(valid)),
        model.joints_of_each(valid),
    )


def test_hidden_tubes_and_targets_are_of_joints_that_exist() -> None:
    model = small("slim", layout="body", typical_joints=20, patch_targets=200)
    assert isinstance(model, SLiMModel)
    clips, valid = mixed("ntu25", "kinect20", "coco17")
    clips, valid = torch.cat([clips] * 20), torch.cat([valid] * 20)
    legs = torch.tensor(["hip" in j or "knee" in j or "ankle" in j or "foot" in j for j in BODY.joints])
    valid[::6] &= ~legs  # bodies without legs have six tubes
    draws, views, _ = views_of(model, clips, valid)
    assert views.there is not None
    there = views.there.view(len(clips), 2, -1)
    tubes = torch.tensor(model.config.tube_of_token)
    exists = torch.stack([there[..., tubes == tube].any(-1) for tube in range(10)], -1)
    assert exists[::6].sum(-1).eq(6).all()
    assert exists[1::6].sum(-1).eq(10).all()
    assert not (draws.tubes.bool() & ~exists).any()
    total, count = exists.sum(-1), draws.tubes.sum(-1)
    assert (count >= (0.5 * total).floor()).all()
    assert (count < total).all()
    assert count[::6].float().mean() == pytest.approx(0.7 * 6, abs=0.4)
    # Those that count are all of the hidden ones that there are.
    known = views.known.gather(1, draws.targets.flatten(0, 1))
    hidden = views.hidden.gather(1, draws.targets.flatten(0, 1))
    assert torch.equal((known & hidden).sum(1), (views.known & views.hidden).sum(1).clamp(max=200))
    assert not (views.known & ~views.there).any()


def test_a_mirrored_body_has_the_joints_of_the_other_side() -> None:
    model = small("slim", layout="body", typical_joints=20, mirror=1.0, bone_scale=0.0)
    clips, valid = mixed("ntu25")
    left = torch.tensor([joint.startswith("left_") for joint in BODY.joints])
    right = torch.tensor([joint.startswith("right_") for joint in BODY.joints])
    valid[:, :, left] = False
    _, views, _ = views_of(model, clips, valid)
    there = views.there.view(4, 6, -1)
    assert there[..., left].any()
    assert not there[..., right].any()
    assert torch.equal(there[0, 0].nonzero(), views.whole[0, 0].abs().sum(-1).nonzero())


def test_a_bone_ends_at_the_next_joint_that_exists() -> None:
    """Without a collar the shoulder hangs on what is above it; without anything above a joint does not move."""
    model = small("slim", layout="body", typical_joints=20, mirror=0.0, bone_scale=0.5)
    clips, valid = mixed("ntu25", "coco17")
    draws, views, seen = views_of(model, clips, valid)
    assert seen is not None
    whole, factor = views.whole.view(4, 2, *clips.shape[1:]), 1 + draws.bones * (0.5 / 2**15)
    clips = torch.where(valid[..., None], clips, 0)
    for sequence, joint, parent in (
        (0, "left_shoulder", "shoulder_center"),
        (0, "left_hip", "pelvis"),
        (0, "left_elbow", "left_shoulder"),
        (1, "left_elbow", "left_shoulder"),
    ):
        one, above = BODY.index(joint), BODY.index(parent)
        old = clips[sequence, :, one] - clips[sequence, :, above]
        new = whole[sequence, :, :, one] - whole[sequence, :, :, above]
        expected = old * factor[sequence, :2, one, None, None]
        torch.testing.assert_close(new, expected, rtol=1e-3, atol=1e-5)
    for joint in ("left_shoulder", "left_hip", "nose"):  # coco17 has nothing above these
        one = BODY.index(joint)
        assert torch.equal(whole[1, :, :, one], clips[1, :, one].expand(2, -1, -1))


@pytest.mark.parametrize("summary", ["class", "mean"])
def test_joints_that_a_sequence_lacks_change_nothing(summary: str) -> None:
    """Neither their coordinates nor their embeddings nor their tokens reach any loss, gradient or prediction."""
    model = small("slim", layout="body", typical_joints=20, summary=summary).double()
    assert isinstance(model, SLiMModel)
    moved(model).eval()  # so that the teacher stays
    clips, valid = mixed("ntu25", "kinect20")
    clips = clips.double()
    valid[1, 4:9, places(get_layout("kinect20"))[3]] = False
    keep = model.choose_visible(*model.prepare(clips, valid)[:1], seed=SEED, valid=valid)
    outputs = []
    absent = ~valid.any(0).any(0)
    for filler in (float("nan"), 1e6):
        model.zero_grad()
        output = model(
            torch.where(valid[..., None], clips, filler), valid=valid, keep=keep, return_details=True
        )
        output.loss.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        assert all(gradient.isfinite().all() for gradient in gradients)
        embed = model.encoder.embed.joint_embed.grad
        assert embed is not None
        assert torch.equal(embed.abs().sum((0, 2)) > 0, ~absent)
        outputs.append((output.loss.detach(), output.terms, *gradients))
        with torch.no_grad():  # for the second pass
            for encoder in (model.encoder, model.teacher.encoder):
                encoder.embed.joint_embed[:, absent] = 50.0
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


def test_pairs_of_which_one_joint_is_present_are_not_mirrored() -> None:
    joints = tuple(joint for joint in BODY.joints if joint != "left_thumb")
    model = small("slim", layout="body", present=joints, mirror=1.0)
    clips, valid = mixed("ntu25")
    draws, _, _ = views_of(model, clips, valid)
    assert not draws.mirrored.any()


def test_present_joints_of_another_layout() -> None:
    """A model of ntu25 whose data lack a hand is the model of the layout without it."""
    whole, tips = get_layout("ntu25"), (21, 22, 23, 24)
    joints = [joint for joint in range(25) if joint not in tips]
    layout = SkeletonLayout(
        "handless",
        tuple(whole.joints[joint] for joint in joints),
        tuple(joints.index(whole.parents[j]) if whole.parents[j] != -1 else -1 for j in joints),
        pairs=tuple(
            (joints.index(a), joints.index(b)) for a, b in whole.pairs if a in joints and b in joints
        ),
    )
    model = small("slim", layout=layout).double()
    twin = small("slim", layout="ntu25", present=tuple(layout.joints)).double()
    state = {
        name: value.index_select(1, torch.tensor(joints)) if name.endswith("joint_embed") else value
        for name, value in twin.state_dict().items()
    }
    model.load_state_dict(state)
    clips = clips_of("ntu25", 4).double()
    own = clips[:, :, joints]
    keep = model.choose_visible(own, seed=SEED)
    assert torch.equal(keep, twin.choose_visible(clips, seed=SEED))
    assert relative_error(twin(clips, keep=keep), model(own, keep=keep)) < 1e-12
    assert relative_error(twin.eval().features(clips), model.eval().features(own)) < 1e-12
