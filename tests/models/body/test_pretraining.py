"""Pre-training a model of any skeleton: what its configuration keeps of the data, and what cannot train."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons
from fastamr.data.joining import gather
from fastamr.data.to_body import common_joints, joints_of_data, source_layout
from fastamr.models import load_pretrained
from fastamr.skeleton import BODY, get_layout
from fastamr.training import PretrainConfig, pretrain

from .sets import pack, parts, saved

TINY = {
    "frames": 8, "width": 8, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2,
    "layout": "body",
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "amr": {"target_patches": 1},
    "skeleton_mae": {},
    "mamp": {},
    "gfp": {"levels": [1, 2], "target_width": 8, "target_hidden": 8, "global_hidden": 8},
    "asma": {"hidden": 4, "projector": 8},
    "slim": {"patch_frames": 4, "prototypes": 16, "head_hidden": 8, "bottleneck": 8, "local_crops": 1},
}


def config(
    folder: Path, sources: list[str], model: str = "amr", out: str = "run", **options: Any
) -> PretrainConfig:
    defaults: dict[str, Any] = {
        "updates": 2, "batch_size": 4, "min_frames": 4, "progress": False, "tensorboard": False, "device": "cpu",
        "log_every": 1, "architecture": {**TINY, **OWN[model]},
    }  # fmt: skip
    return PretrainConfig(model=model, data=sources, out=str(folder / out), **{**defaults, **options})


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("model", OWN)
def test_a_mixture(model: str, tmp_path: Path) -> None:
    sources = saved(tmp_path, pack("ntu25"), pack("kinect20", 1), pack("coco17", 2))
    out = pretrain(config(tmp_path, sources, model, probe_every=1))
    found = load_pretrained(out)
    assert set(found.config.present) == parts("ntu25", "kinect20", "coco17")
    assert found.config.typical_joints == round((25 + 20 + 17) / 3)
    assert not found.config.uniform
    assert np.isfinite(losses(out)).all()
    # A run that goes on finds the same joints.
    again = pretrain(config(tmp_path, sources, model, out="again", updates=4))
    longer = pretrain(config(tmp_path, sources, model, out="longer", updates=2))
    pretrain(PretrainConfig.load(longer / "config.yaml", updates=4, resume=True, out=str(longer)))
    assert load_pretrained(again).config == load_pretrained(longer).config


def test_one_layout_is_uniform_and_has_its_own_k(tmp_path: Path) -> None:
    out = pretrain(config(tmp_path, saved(tmp_path, pack("ntu25"), pack("ntu25", 1))))
    found = load_pretrained(out).config
    assert set(found.present) == parts("ntu25")
    assert (found.typical_joints, found.uniform) == (0, True)
    header = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert header["tokens"] == 2 * 25
    assert header["visible"] == round(2 * 25 * 0.1)


def test_too_few_tokens_are_refused(tmp_path: Path) -> None:
    sources = saved(tmp_path, pack("ntu25", clips=60), tiny_body())
    options = {"architecture": {**TINY, **OWN["amr"], "mask_ratio": 0.5}}
    with pytest.raises(
        ValueError, match=r"clip 'body_9_\d' has 3 joints of the model, 6 tokens, fewer than the K = 2"
    ):
        pretrain(config(tmp_path, sources, **options))


def test_slim_takes_sequences_of_few_joints_but_not_of_none(tmp_path: Path) -> None:
    """It draws no K of the tokens, and reads no strategy of masking."""
    data = tiny_body()
    sources = saved(tmp_path, pack("ntu25", clips=60), data)
    options = {"architecture": {**TINY, **OWN["slim"], "masking": "joint"}}
    out = pretrain(config(tmp_path, sources, "slim", mixture=0.0, **options))
    assert np.isfinite(losses(out)).all()
    valid = torch.zeros_like(data.coords[..., 0], dtype=torch.bool)
    empty = dataclasses.replace(data, coords=data.coords * 0, valid=valid)
    sources = saved(tmp_path, pack("ntu25", clips=60), empty)
    with pytest.raises(ValueError, match=r"clip 'body_9_\d' shows no joint of the model in any frame"):
        pretrain(config(tmp_path, sources, "slim", out="other", **options))


def tiny_body() -> PackedSkeletons:
    """A set of the layout body itself, whose people show three joints."""
    data = pack("body", 9)
    valid = torch.zeros(data.coords.shape[:2], dtype=torch.bool)
    valid[:, :3] = True
    return dataclasses.replace(data, coords=data.coords * valid[..., None], valid=valid)


def test_masks_of_whole_joints_are_refused_for_mixtures_alone(tmp_path: Path) -> None:
    sources = saved(tmp_path, pack("ntu25"), pack("kinect20", 1))
    options = {"architecture": {**TINY, **OWN["amr"], "masking": "joint"}}
    with pytest.raises(ValueError, match="masking='joint' keeps whole joints or times"):
        pretrain(config(tmp_path, sources, **options))
    assert np.isfinite(losses(pretrain(config(tmp_path, sources[:1], **options)))).all()


def test_what_notes_tell_of_the_joints() -> None:
    one, two = pack("ntu25"), pack("kinect20", 1)
    body = dataclasses.replace(pack("body", 2), valid=tiny_body().valid)
    alone = gather([one], ["a"], ["center"], layout=BODY).data
    assert source_layout(alone) == get_layout("ntu25")
    assert len(common_joints(alone) or ()) == 25
    twice = gather([one, pack("ntu25", 5)], ["a", "b"], ["center"], layout=BODY).data
    assert len(common_joints(twice) or ()) == 25
    for others, names in (([one, two], "ab"), ([one, body], "ab"), ([body, one], "ab")):
        joined = gather(others, list(names), ["center"], layout=BODY).data
        assert common_joints(joined) is None
        assert source_layout(joined) is None
    assert len(joints_of_data(gather([one, two], ["a", "b"], layout=BODY).data)) == 25
    assert common_joints(pack("body", 2)) == tuple(range(BODY.num_joints))
    assert common_joints(one) is None
