"""Pictures of models of any skeleton: joints that a sequence lacks are neither tokens nor drawn."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fastamr import cli
from fastamr.data import PackedSkeletons
from fastamr.data.joining import gather
from fastamr.data.to_body import as_body
from fastamr.features.extract import given_joints
from fastamr.models import SkeletonModel
from fastamr.skeleton import BODY, get_layout
from fastamr.visualization.attention_maps import attention_weights, received
from fastamr.visualization.overlays import as_model_sees, guidance_overlay, mask_overlay, model_clip

from ..models.body.sets import pack, saved
from ..models.body.twins import clip_over_body, places, small, twins


def both(*layouts: str) -> PackedSkeletons:
    """Clips of layouts as parts of a body, six each."""
    return gather([pack(name, seed) for seed, name in enumerate(layouts)], layouts, layout=BODY).data


def here(layout: str, times: int = 6) -> torch.Tensor:
    """The tokens of a layout in ``body``."""
    return (torch.arange(times)[:, None] * BODY.num_joints + places(get_layout(layout))).flatten()


@pytest.mark.parametrize("name", ["amr", "skeleton_mae"])
def test_attention_is_that_of_the_model_of_the_layout(name: str) -> None:
    model, twin = twins(name, "kinect20", "masked")
    clips = torch.randn(2, 24, 20, 3)
    over, seen = clip_over_body(clips, None, model.layout)
    seen[1, :, BODY.index("head")] = False  # the second body lacks a joint
    over, seen = twin.prepare(over, seen)
    weights = attention_weights(twin, over, seen)
    tokens = here("kinect20")
    truth = attention_weights(model, clips)
    torch.testing.assert_close(weights[0][tokens[:, None], tokens], truth[0], rtol=1e-4, atol=1e-6)
    for body, count in ((0, 120), (1, 114)):
        there = ~weights[body].isnan()
        assert int(there.any(1).sum()) == int(there.any(0).sum()) == count
        assert int(there.sum()) == count**2
        torch.testing.assert_close(weights[body].nansum(1)[there.any(1)], torch.ones(count))
    share = received(weights, BODY.num_joints)
    assert np.allclose(np.nanmean(share, axis=(1, 2)), 1, atol=1e-5)
    assert np.isnan(share[1, :, BODY.index("head")]).all()
    assert np.isfinite(share[0, :, places(model.layout).numpy()]).all()


def test_attention_to_a_joint_that_the_layout_has_and_a_clip_hides() -> None:
    """As the features count it: a token where all data are of one layout, none where they are of several."""
    _, twin = twins("amr", "kinect20", "masked")
    data = as_body(pack("kinect20"))
    assert data.valid is not None
    data.valid[:, BODY.index("head")] = False
    given = model_clip(data, 0, 24)
    known = given_joints(twin, data)
    for joints, count in ((known["joints"], 120), (None, 114)):
        weights = attention_weights(twin, *twin.prepare(given.clips, given.valid), joints)
        assert int((~weights.isnan()).any(2).sum()) == count


def test_mask_and_guidance() -> None:
    twin = small("amr", layout="body", typical_joints=20, guidance_windows=[4, 8])
    data = both("ntu25", "kinect20", "coco17")
    for clip, name in ((0, "ntu25"), (6, "kinect20"), (12, "coco17")):
        given = as_model_sees(model_clip(data, clip, 24), twin)
        clips, valid = twin.prepare(given.clips, given.valid)
        keep = twin.choose_visible(clips, seed=torch.tensor([3, 0]), valid=valid)
        overlay = mask_overlay(given, patch_frames=4, keep=keep)
        own = torch.zeros(BODY.num_joints, dtype=torch.bool).index_fill(0, places(get_layout(name)), True)
        assert not overlay.values[:, 0, ~own.numpy()].any()
        assert overlay.values.sum() == twin.config.visible * 4
        count = get_layout(name).num_joints
        assert overlay.text.startswith(f"{twin.config.visible} of {6 * count} tokens visible")
        assert twin.guidance is not None
        weights = twin.guidance(clips, valid)
        values = guidance_overlay(given, weights)
        assert np.isnan(values.values[:, 0, ~own.numpy()]).all()
        alone = small("amr", layout=name, guidance_windows=[4, 8])
        assert alone.guidance is not None
        truth = alone.guidance(model_clip(pack(name, clip // 6), 0, 24).clips, None)[0].numpy()
        assert np.allclose(values.values[:, 0, places(get_layout(name)).numpy()], truth, atol=1e-5)
        assert values.scale == pytest.approx((truth.min(), truth.max()), abs=1e-5)


def test_a_mask_without_a_model_counts_the_tokens_that_there_are() -> None:
    given = model_clip(both("ntu25", "kinect20"), 6, 24)
    overlay = mask_overlay(given, ratio=0.5, patch_frames=4)
    assert overlay.text.startswith("60 of 120 tokens visible")
    own = np.zeros(BODY.num_joints, dtype=bool)
    own[places(get_layout("kinect20")).numpy()] = True
    assert overlay.values[:, 0, own].mean() == 0.5
    assert not overlay.values[:, 0, ~own].any()


def test_joints_without_tokens_are_not_drawn() -> None:
    """The model's training data had no face."""
    twin = small("amr", layout="body", present=tuple(BODY.joints[p] for p in places(get_layout("kinect20"))))
    given = model_clip(as_body(pack("coco17")), 0, 24)
    seen = as_model_sees(given, twin)
    nose = BODY.index("nose")
    assert np.isfinite(given.shown.coords[:, 0, nose]).all()
    assert np.isnan(seen.shown.coords[:, 0, nose]).all()
    assert seen.valid is not None
    assert not seen.valid[..., nose].any()
    assert np.isfinite(seen.shown.coords[:, 0, BODY.index("left_knee")]).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model: SkeletonModel = small("amr", layout="body", typical_joints=20)
    folder = tmp_path_factory.mktemp("body") / "run"
    model.save_pretrained(folder)
    return folder


def test_plot_and_show(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    sources = saved(tmp_path, pack("kinect20"), pack("coco17", 1))
    words = [
        "plot",
        str(folder),
        "--data",
        *sources,
        "--out",
        str(tmp_path),
        "--format",
        "svg",
        "--clip",
        "7",
    ]
    assert cli.main([*words, "--attention", "--embedding", "pca", "--pooling", "regions"]) == 0
    text = (tmp_path / "attention.svg").read_text()
    named = set(re.findall(r"<!-- (\w+) -->", text)) & set(BODY.joints)
    assert named == {BODY.joints[place] for place in places(get_layout("coco17"))}
    assert "12 clips" in (tmp_path / "embedding.svg").read_text()
    for what in ("--mask", "--guidance", "--reconstruction"):
        picture = tmp_path / f"{what[2:]}.svg"
        assert cli.main(["show", sources[0], "--checkpoint", str(folder), what, "--out", str(picture)]) == 0
    assert "24 of 120 tokens visible" in (tmp_path / "mask.svg").read_text()


def test_a_body_of_fewer_tokens_than_stay_visible_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    data = as_body(pack("kinect20"))
    assert data.valid is not None
    data.valid[:, 4:] = False
    (source,) = saved(tmp_path, data)
    for what in ("--mask", "--reconstruction"):
        words = ["show", source, "--checkpoint", str(folder), what, "--out", str(tmp_path / "a.png")]
        assert cli.main(words) == 1
        error = capsys.readouterr().err
        assert "clip 'kinect20_0_0' has" in error
        assert "fewer than the K = 24" in error
        assert error.count("\n") == 1
