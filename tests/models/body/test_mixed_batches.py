"""Sequences of different skeletons in one batch: none sees what another one has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastamr.skeleton import BODY, get_layout
from fastamr.testing import relative_error

from .twins import OWN, clip_over_body, places, small

SEED = torch.tensor([5, 2])


def mixed(*layouts: str, frames: int = 24) -> tuple[Tensor, Tensor]:
    """Two sequences of each layout, as ``body``, in turns."""
    parts = []
    for number, name in enumerate(layouts):
        generator = torch.Generator().manual_seed(number)
        clips = torch.randn(2, frames, get_layout(name).num_joints, 3, generator=generator).cumsum(1) * 0.02
        parts.append(clip_over_body(clips, None, get_layout(name)))
    turns = torch.arange(2 * len(layouts)).view(len(layouts), 2).T.flatten()
    return torch.cat([clips for clips, _ in parts])[turns], torch.cat([valid for _, valid in parts])[turns]


@pytest.mark.parametrize("name", OWN)
def test_features_of_a_sequence_are_its_own(name: str) -> None:
    model = small(name, layout="body", typical_joints=20).double().eval()
    clips, valid = mixed("ntu25", "kinect20", "coco17")
    clips = clips.double()
    together = model.features(clips, valid=valid)
    alone = torch.cat([model.features(clips[n : n + 1], valid=valid[n : n + 1]) for n in range(len(clips))])
    assert relative_error(together, alone) < 1e-12
    # Coordinates of joints that are not there are of no matter, even if they are NaN.
    assert torch.equal(together, model.features(torch.where(valid[..., None], clips, 7.0), valid=valid))


def test_the_mask_of_training_and_the_groups_of_evaluation_agree() -> None:
    model = small("amr", layout="body", typical_joints=20).double()
    clips, valid = mixed("ntu25", "kinect20", "coco17")
    clips = clips.double()
    grouped = model.eval().encode(clips, valid=valid)
    masked = model.train().encode(clips, valid=valid)
    assert relative_error(masked, grouped) < 1e-12
    assert torch.equal(masked == 0, grouped == 0)
    for tokens in (grouped, masked):
        model.zero_grad()
        tokens.square().sum().backward()
        embed = model.encoder.embed.joint_embed.grad
        assert embed is not None
        there = valid.any(0).any(0)
        assert torch.equal(embed.abs().sum((0, 2)) > 0, there)


def test_known_tokens() -> None:
    model = small("amr", layout="body")
    _, valid = mixed("ntu25", "kinect20")
    valid[0] = False
    valid[1, 2, places(get_layout("kinect20"))[0]] = False
    known = model.known_tokens(4, valid)
    assert known is not None
    grid = known.unflatten(1, (6, -1))
    assert grid[0].all()  # nothing is seen: all count
    assert int(grid[1].sum()) == 6 * 20 - 1
    assert int(grid[2].sum()) == 6 * 25
    static = model.known_tokens(3, None, joints=[0, 5])
    assert static is not None
    assert static.shape == (3, model.config.tokens)
    assert static.unflatten(1, (6, -1)).any(1).sum(1).tolist() == [2, 2, 2]
    assert small("amr", layout="ntu25").known_tokens(3) is None


@pytest.mark.parametrize("name", ["amr", "skeleton_mae", "mamp", "gfp"])
def test_a_sequence_s_prediction_is_its_own(name: str) -> None:
    """In the decoder too: what is predicted of a sequence is as it is alone."""
    model = small(name, layout="body", typical_joints=20).double()
    clips, valid = mixed("ntu25", "kinect20")
    clips = clips.double()
    prepared = model.prepare(clips, valid)
    keep = model.choose_visible(prepared[0], seed=SEED, valid=prepared[1])
    whole = model(clips, valid=valid, keep=keep, return_details=True)
    for place in range(len(clips)):
        one = slice(place, place + 1)
        seen = valid[one].any(1)[0]
        alone = model(clips[one], valid=valid[one], keep=keep[one], return_details=True)
        assert relative_error(alone.prediction, whole.prediction[one]) < 1e-12
        if name == "gfp":
            continue
        # And as in a model whose configuration knows that there are no others.
        knows = small(
            name, layout="body", present=tuple(BODY.joints[int(j)] for j in seen.nonzero()[:, 0])
        ).double()
        knows.load_state_dict(model.state_dict())
        told = knows(clips[one], valid=valid[one], keep=keep[one], return_details=True)
        rows = alone.prediction.unflatten(1, (-1, BODY.num_joints))[:, :, seen]
        others = told.prediction.unflatten(1, (-1, BODY.num_joints))
        assert relative_error(others[:, :, seen], rows) < 1e-12
        assert not others[:, :, ~seen].any()
        assert relative_error(told.loss, alone.loss) < 1e-12
        if name == "amr":
            assert relative_error(told.guidance, alone.guidance) < 1e-12


def test_parts_without_trained_embeddings_are_left_out() -> None:
    model = small(
        "amr", layout="body", present=tuple(BODY.joints[j] for j in places(get_layout("kinect20")))
    ).eval()
    clips, valid = mixed("ntu25")
    features = model.features(clips, valid=valid)
    with torch.no_grad():
        model.encoder.embed.joint_embed[:, BODY.index("left_thumb")] += 1
    assert torch.equal(features, model.features(clips, valid=valid))
    joints = [BODY.index("left_thumb")]
    with pytest.raises(
        ValueError, match="the data has left_thumb, the training data of the model had none of these"
    ):
        model.features(clips, valid=valid, joints=joints)


def test_saved_and_loaded(tmp_path: Path) -> None:
    from fastamr.models import load_pretrained

    model = small("skeleton_mae", layout="body", present=("head", "neck", "pelvis", "nose"), typical_joints=3)
    model.save_pretrained(tmp_path)
    again = load_pretrained(tmp_path)
    assert again.config == model.config
    assert again.layout is BODY
    assert "present" not in again.state_dict()
