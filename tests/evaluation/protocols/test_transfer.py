from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.data.preprocessing.convert_layout import convert
from fastamr.evaluation import compare
from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.evaluation.protocols.transfer import describe_transfer, to_layout
from fastamr.models import build_model, load_pretrained
from fastamr.skeleton import SkeletonLayout, get_layout

TINY = {"frames": 8, "width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1,
        "decoder_heads": 2, "target_patches": 1}  # fmt: skip


def other_data(
    layout: str = "ntu25", clips: int = 24, channels: int = 3, noise: float = 0.1
) -> PackedSkeletons:
    """Clips whose class shows in the pose of every joint."""
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(3, get_layout(layout).num_joints, channels))
    arrays = [
        (poses[place % 3] + noise * rng.normal(size=(6, 1, *poses.shape[1:]))).astype(np.float32)
        for place in range(clips)
    ]
    train = torch.arange(clips) % 4 < 2
    return PackedSkeletons.from_clips(
        arrays,
        layout=layout,
        labels=[place % 3 for place in range(clips)],
        splits={"official": Split(train, ~train)},
    )


@pytest.fixture
def run(tmp_path):
    build_model("amr", layout="kinect20", **TINY).save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("data: [a.safetensors]\nsteps: [center]\nupdates: 7\n")
    return tmp_path / "run"


class TestLayouts:
    def test_what_became_of_each_joint(self):
        data, note = to_layout(other_data("ntu25"), get_layout("kinect20"))
        assert data.layout.name == "kinect20"
        assert torch.equal(data.coords, convert(other_data("ntu25"), "kinect20").coords)
        assert len(note["copied"]) == 20
        assert (note["interpolated"], note["masked"]) == ({}, [])
        assert set(note["unused"]) >= {"left_hand_tip", "right_thumb"}
        assert data.steps[-1] == note
        assert "20 joints copied, 5 unused" in describe_transfer(note)

    def test_joints_that_are_made_up_or_not_seen(self):
        data, note = to_layout(other_data("coco17"), get_layout("ntu25"))
        assert note["interpolated"]["base_of_spine"] == {"left_hip": 0.5, "right_hip": 0.5}
        assert note["masked"]
        masked = [data.layout.index(joint) for joint in note["masked"]]
        assert not data.valid[:, masked].any()
        assert data.valid[:, [data.layout.index("base_of_spine")]].all()
        text = describe_transfer(note)
        assert f"{len(note['masked'])} masked ({note['masked'][0]}" in text
        data, strict = to_layout(other_data("coco17"), get_layout("ntu25"), missing="mask")
        assert strict["interpolated"] == {}
        assert set(strict["masked"]) == {*note["interpolated"], *note["masked"]}
        assert not data.valid[:, data.layout.index("base_of_spine")].any()

    def test_the_same_layout_is_left_alone(self):
        data = other_data("kinect20")
        same, note = to_layout(data, get_layout("kinect20"))
        assert same is data
        assert len(note["copied"]) == 20
        renamed = dataclasses.replace(get_layout("kinect20"), name="mine")
        other, _ = to_layout(data, renamed)
        assert other.layout == renamed
        assert other.steps == ()

    def test_layouts_that_cannot_be_mapped_name_the_joints(self):
        tail = SkeletonLayout("fish", ("snout", "fin", "tail"), (-1, 0, 1))
        data = PackedSkeletons.from_clips([np.ones((3, 1, 3, 3))], layout=tail)
        with pytest.raises(
            ValueError, match=r"Missing: pelvis, spine, .*left_hip.*; present: snout, fin, tail"
        ):
            to_layout(data, get_layout("kinect20"))
        with pytest.raises(ValueError, match=r"lacks \d+ of the 25 joints of 'ntu25': base_of_spine"):
            to_layout(other_data("coco17"), get_layout("ntu25"), missing="refuse")


class TestProtocol:
    def test_writes_the_scores_and_the_joints(self, run, capsys):
        data = other_data(noise=4.0)
        config = EvaluateConfig(
            checkpoint=str(run), data=["b.safetensors"], protocol="transfer", device="cpu"
        )
        report = evaluate(config, data=data)
        written = json.loads((run / "evaluation-b-official-transfer.json").read_text())
        assert written == json.loads(json.dumps(report))
        assert set(report["results"]) == {"raw", "input", "random", "encoder"}
        assert set(report["results"]["encoder"]) == {"knn_1", "knn_20", "linear", "logistic"}
        assert report["transfer"][0]["source"] == "ntu25"
        assert [step["name"] for step in report["data"]["steps"]] == ["note", "center"]
        assert report["pretraining"][str(run)]["updates"] == 7
        assert "recipes" not in report
        assert "layout 'ntu25' -> 'kinect20': 20 joints copied" in capsys.readouterr().out
        # The numbers are those of the parts, put together by hand; raw coordinates are those of the given layout.
        from fastamr.data import preprocess

        prepared = preprocess(convert(data, "kinect20"), ["center"])
        expected = compare(load_pretrained(run), prepared, raw_data=data)
        assert report["results"] == expected
        assert expected["raw"] != compare(load_pretrained(run), prepared)["raw"]

    def test_fine_tuning_by_option(self, run):
        config = EvaluateConfig(
            checkpoint=str(run),
            data=["b"],
            protocol="transfer",
            with_finetune=True,
            device="cpu",
            finetune={"epochs": 2, "hidden": 0, "min_frames": 4},
        )
        report = evaluate(config, data=other_data(), quiet=True)
        assert set(report["results"]["encoder"]) >= {"linear", "finetune"}
        assert "finetune" in report["results"]["random"]
        assert "finetune" not in report["results"]["raw"]
        assert report["recipes"]["encoder"]["epochs"] == 2

    def test_other_channels_are_refused(self, run):
        config = EvaluateConfig(checkpoint=str(run), data=["b"], protocol="transfer", device="cpu")
        with pytest.raises(ValueError, match="built for 3 channels, the data has 2"):
            evaluate(config, data=other_data("coco17", channels=2), quiet=True)
        with pytest.raises(ValueError, match=r"unknown missing 'masks'.*did you mean 'mask'"):
            EvaluateConfig(checkpoint=str(run), data=["b"], missing="masks")
