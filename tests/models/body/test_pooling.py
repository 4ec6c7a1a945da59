"""Pooling by regions with a model of any skeleton: as the models of each layout that have its embeddings."""

from __future__ import annotations

import pytest
import torch

from fastamr.data import PackedSkeletons
from fastamr.data.joining import gather
from fastamr.features import extract_features
from fastamr.layouts.body import parts_of
from fastamr.models import MODELS, SkeletonModel, build_model
from fastamr.models.parts.pooling import POOLINGS, SLOTS, slots_of
from fastamr.skeleton import BODY, LAYOUTS, get_layout
from fastamr.testing import relative_error

from .sets import pack, parts
from .twins import PLAIN, places, small

SETS = ("ntu25", "kinect20", "coco17")


@pytest.fixture(params=PLAIN)
def model(request: pytest.FixtureRequest) -> SkeletonModel:
    """A model whose training data were of three layouts."""
    present = tuple(joint for joint in BODY.joints if joint in parts(*SETS))
    return small(request.param, layout="body", present=present, typical_joints=20).double().eval()


def of_layout(model: SkeletonModel, layout: str) -> SkeletonModel:
    """The encoder of a model of ``body`` for the joints of another layout; its decoder is not."""
    options = {**model.config.to_dict(), "layout": layout, "present": (), "typical_joints": 0}
    own = build_model(next(name for name in PLAIN if MODELS[name] is type(model)), options).double().eval()
    joints = places(own.layout)
    state = {
        name: value.index_select(1, joints) if name.endswith("joint_embed") else value
        for name, value in model.state_dict().items()
        if name.startswith("encoder.")
    }
    missing = own.load_state_dict(state, strict=False)
    assert not [name for name in missing.missing_keys if name.startswith("encoder.")]
    assert not missing.unexpected_keys
    return own


def with_gaps(layout: str, seed: int) -> PackedSkeletons:
    """Motion in which every joint is seen at some time, and many are not at others."""
    data = pack(layout, seed)
    seen = torch.rand(data.coords.shape[:2], generator=torch.Generator().manual_seed(seed)) > 0.05
    seen.view(6, 12, -1)[:, :4] = True
    return PackedSkeletons(**{**vars(data), "valid": seen})


@pytest.mark.parametrize("pooling", POOLINGS)
def test_sets_of_several_layouts(model: SkeletonModel, pooling: str) -> None:
    sets = [with_gaps(layout, seed) for seed, layout in enumerate(SETS)]
    together = extract_features(model, gather(sets, SETS, layout=BODY).data, pooling=pooling)
    own = [extract_features(of_layout(model, one.layout.name), one, pooling=pooling) for one in sets]
    assert len({tuple(row.tolist()) for row in together}) == len(together)
    for found, truth in zip(together.split(6), own, strict=True):
        assert relative_error(found, truth) < 1e-6


def test_a_region_that_a_layout_lacks_is_zeros_with_its_flag(model: SkeletonModel) -> None:
    """Bodies without legs beside whole ones."""
    data = gather([pack("ntu25"), pack("kinect20", 1)], ["a", "b"], layout=BODY).data
    assert data.valid is not None
    slots = torch.tensor(slots_of(BODY))
    legs = (slots == SLOTS.index("left_leg")) | (slots == SLOTS.index("right_leg"))
    half = data.coords.shape[0] // 2
    valid = data.valid.clone()
    valid[:half] &= ~legs
    found = extract_features(model, PackedSkeletons(**{**vars(data), "valid": valid}), pooling="regions")
    means, flags = found[:, :-5].unflatten(1, (5, -1)), found[:, -5:]
    assert flags.tolist() == [[1.0, 1, 1, 0, 0]] * 6 + [[1.0] * 5] * 6
    assert not means[:6, 3:].any()
    assert means[:6, :3].any(2).all()
    assert means[6:].any(2).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_joint_is_of_the_region_of_its_part(name: str) -> None:
    layout = get_layout(name)
    own = dict(zip(layout.joints, slots_of(layout), strict=True))
    known = [(joint, part) for joint, part in parts_of(layout).items() if part in BODY.joints]
    for joint, part in known:
        assert own[joint] == slots_of(BODY)[BODY.index(part)], (joint, part)
