"""Key points of images in a model of the layout body that has three channels."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from fastamr import cli
from fastamr.data import PackedSkeletons, preprocess
from fastamr.data.joining import gather
from fastamr.data.to_body import as_body, for_layout, upright
from fastamr.export import load_predictor
from fastamr.features.extract import extract_features
from fastamr.models import build_model, load_pretrained
from fastamr.skeleton import BODY, get_layout

from ..models.body.sets import pack, saved
from .test_body import SIZES, run

__all__ = ["run"]
STEPS = ["center", "align_body", "scale:unit=torso"]


def image(layout: str = "coco17", seed: int = 3, clips: int = 8) -> PackedSkeletons:
    """A standing body in the pixels of an image, y downwards, with some motion."""
    data = pack(layout, seed, clips)
    joints = get_layout(layout)
    heights = torch.zeros(joints.num_joints)
    for joint, name in enumerate(joints.joints):
        heights[joint] = 1.0 if "shoulder" in name else 0.5 if "hip" in name else 1.3
    coords = 20 * data.coords[..., :2].float()
    coords[..., 1] += 400 - 200 * heights
    return dataclasses.replace(data, coords=coords)


class TestEntry:
    def test_y_points_up_and_the_depth_is_zero(self) -> None:
        data = image()
        body = for_layout(data, BODY, STEPS, 3)
        assert body.coords.shape[-1] == 3
        assert not body.coords[..., 2].any()
        shoulder, hip = (body.coords[:, BODY.index(f"left_{part}"), 1] for part in ("shoulder", "hip"))
        assert bool((shoulder > hip).all())
        assert [step["name"] for step in body.steps][:4] == ["flip", *(one.split(":")[0] for one in STEPS)]

    def test_a_flip_keeps_the_sides_apart(self) -> None:
        """Of a body that faces the camera left is at the larger x, in the image and in space."""
        data = image()
        left, right = (get_layout("coco17").index(f"{side}_hip") for side in ("left", "right"))
        coords = data.coords.clone()
        coords[:, left, 0], coords[:, right, 0] = 60.0, -60.0
        body = for_layout(dataclasses.replace(data, coords=coords), BODY, STEPS, 3)
        assert bool(
            (body.coords[:, BODY.index("left_hip"), 0] > body.coords[:, BODY.index("right_hip"), 0]).all()
        )

    def test_what_stands_is_not_flipped(self) -> None:
        standing = preprocess(image(), ["flip:axes=y"])
        assert upright(standing) is standing
        bare = dataclasses.replace(
            image(), layout=dataclasses.replace(get_layout("coco17"), name="bare", hips=None)
        )
        assert upright(bare) is bare

    def test_nothing_changes_without_a_third_channel(self) -> None:
        data = image()
        for channels in (None, 2):
            body = for_layout(data, BODY, (), channels)
            assert torch.equal(body.coords, as_body(data).coords)

    def test_both_kinds_join(self) -> None:
        sets = [pack("ntu25"), image()]
        joined = gather(sets, ["space", "image"], STEPS, layout=BODY)
        assert joined.data.coords.shape[-1] == 3
        assert "image: 2-D, so its depth is 0 and its y points up" in joined.notes
        flat = torch.tensor([not bool(joined.data.select([clip]).coords[..., 2].any()) for clip in range(14)])
        assert flat.tolist() == [False] * 6 + [True] * 8
        with pytest.raises(ValueError, match="3 and 2 channels"):
            gather([pack("coco17"), image()], ["space", "image"], layout=get_layout("coco17"))

    def test_two_channels_alone_stay_two(self) -> None:
        assert (
            gather([image(), image("mpii16", 4)], ["a", "b"], STEPS, layout=BODY).data.coords.shape[-1] == 2
        )


def test_evaluate_finetune_and_predict(run: Path, tmp_path: Path) -> None:
    (source,) = saved(tmp_path, image())
    words = ["--checkpoint", str(run), "--data", source]
    assert (
        cli.main(["evaluate", *words, "--protocol", "knn", "--out", str(tmp_path / "knn.json"), "--no-cache"])
        == 0
    )
    assert json.loads((tmp_path / "knn.json").read_text())
    out = tmp_path / "classifier"
    assert cli.main(["finetune", *words, "--recipe.epochs", "1", "--out", str(out)]) == 0
    predictor = load_predictor(out)
    answers = list(predictor.predict(predictor.prepare(image()), top=1))
    assert len(answers) == 8


def test_features_are_those_of_the_prepared_data(run: Path) -> None:
    model = load_pretrained(run)
    ready = for_layout(image(), BODY, ["center"], 3)
    given = preprocess(upright(image()), ["center"])
    assert torch.equal(extract_features(model, given), extract_features(model, ready))


def test_other_layouts_keep_their_error() -> None:
    model = build_model("amr", {**SIZES, "layout": "coco17"})
    with pytest.raises(ValueError, match="built for 3 channels, the data has 2"):
        extract_features(model, image())


def test_a_mixture_with_a_flat_embedding_trains(tmp_path: Path) -> None:
    sources = saved(tmp_path, pack("ntu25"), image())
    sizes = [
        word for name, value in SIZES.items() for word in (f"--model.{name.replace('_', '-')}", str(value))
    ]
    words = ["--data", *sources, "--mixture", "0.5", "--model.flat-embedding", "--project", "0.5"]
    words += ["--updates", "2", "--batch-size", "4", "--min-frames", "4", "--device", "cpu", "--no-progress"]
    out = tmp_path / "run"
    assert (
        cli.main(["pretrain", *words, *sizes, "--preprocess", *STEPS, "--out", str(out), "--no-tensorboard"])
        == 0
    )
    assert load_pretrained(out).config.channels == 3
