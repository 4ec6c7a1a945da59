"""Sizes of bodies, and what is said where they cannot be what they are taken for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, preprocess
from fastamr.data.audit import audit, format_audit, format_page
from fastamr.data.body_size import body_size, median_trunk, size_warning
from fastamr.skeleton import SkeletonLayout, get_layout

SPINE = SkeletonLayout("trunk3", ("root", "chest", "head"), (-1, 0, 1), spine=(0, 1))
PAIRS = SkeletonLayout.from_joints(
    "flat4", ("left_hip", "right_hip", "left_shoulder", "right_shoulder"), (-1, -1, -1, -1)
)
BARE = SkeletonLayout("bare3", ("a", "b", "c"), (-1, 0, 1))


def standing(
    layout: SkeletonLayout = SPINE, size: float = 0.5, frames: int = 9, **more: Any
) -> PackedSkeletons:
    """Three clips of a body whose trunk has a length; it walks along z, far from the origin."""
    poses = {
        "trunk3": [[0, 0, 0], [0, size, 0], [0, 1.5 * size, 0]],
        "flat4": [[-1, 0, 0], [1, 0, 0], [-1, size, 0], [1, size, 0]],
        "bare3": [[0, 0, 0], [0.6 * size, 0, 0], [0, 0.8 * size, 0]],
    }
    pose = np.array(poses[layout.name], dtype=np.float64)
    walk = np.array([0, 0, 1]) * np.linspace(3, 4, frames)[:, None]
    clips = [(pose + walk[:, None])[:, None].astype(np.float32) for _ in range(3)]
    return PackedSkeletons.from_clips(clips, layout=layout, **more)


class TestMedianTrunk:
    @pytest.mark.parametrize("layout", [SPINE, PAIRS, BARE], ids=lambda layout: layout.name)
    def test_spine_or_shoulders_or_the_box(self, layout: SkeletonLayout) -> None:
        assert median_trunk(standing(layout, 0.7)) == pytest.approx(0.7, rel=1e-5)

    def test_frames_without_the_body_and_unseen_joints_do_not_count(self) -> None:
        data = standing()
        coords, valid = data.coords.clone(), torch.ones(data.num_frames, 3, dtype=torch.bool)
        coords[:8] = 0
        coords[8:14, 1] = 0  # not seen, so not at the origin
        valid[8:14, 1] = False
        coords[14] = float("nan")
        found = median_trunk(dataclasses.replace(data, coords=coords, valid=valid))
        assert found == pytest.approx(0.5, rel=1e-5)

    def test_float16_and_few_rows(self) -> None:
        data = preprocess(standing(frames=500), ["center:frame=every"]).half()
        assert median_trunk(data, rows=7) == pytest.approx(0.5, rel=1e-2)

    def test_more_rows_than_float32_counts(self) -> None:
        """Evenly spaced rows of 2^24 and more frames stay within them: the last one is the last frame."""
        data = standing(frames=1).select([0])
        frames = 21_538_200
        coords = data.coords[:1].expand(frames, -1, -1)
        many = dataclasses.replace(data, coords=coords, offsets=torch.tensor([0, frames]))
        assert median_trunk(many) == pytest.approx(0.5, rel=1e-2)

    def test_nothing_to_measure(self) -> None:
        data = standing()
        assert median_trunk(dataclasses.replace(data, coords=torch.zeros_like(data.coords))) is None

    @pytest.mark.parametrize("name", ["ntu25", "kinect20", "h36m17", "coco17"])
    def test_built_in_layouts_have_a_trunk(self, name: str) -> None:
        layout = get_layout(name)
        assert layout.spine or (layout.hips and layout.shoulders)


class TestBodySize:
    def test_it_is_that_after_the_steps_that_are_left(self) -> None:
        data = standing(size=500)
        assert body_size(data, ["center"]) == pytest.approx(500)
        assert body_size(data, ["center", "scale:factor=0.001"]) == pytest.approx(0.5)
        scaled = preprocess(data, ["scale:factor=0.001"])
        assert body_size(scaled, ["scale:factor=0.001"]) == pytest.approx(0.5)

    @pytest.mark.parametrize("step", ["scale:unit=torso", "fit_box"])
    def test_none_where_a_step_takes_it_out(self, step: str) -> None:
        data = standing()
        assert body_size(data, [step]) is None
        assert body_size(preprocess(data, [step])) is None
        joined = dataclasses.replace(
            data, steps=({"name": "concatenate", "steps": [[{"name": "scale", "unit": "torso"}]]},)
        )
        assert body_size(joined) is None

    def test_streams_have_the_size_of_their_places(self) -> None:
        data = standing()
        assert body_size(data, ["motion"]) == pytest.approx(0.5)
        assert body_size(preprocess(data, ["motion"])) is None


class TestWarning:
    @pytest.mark.parametrize(
        ("size", "factor"),
        [(500, "0.001"), (50, "0.01"), (19.7, "0.0254"), (1.64, "0.3048"), (5e5, "0.000001"), (0.05, "10")],
    )
    def test_names_the_factor_of_the_unit(self, size: float, factor: str) -> None:
        text = size_warning(standing(size=size), where="clips.safetensors")
        assert text is not None
        assert text.startswith("clips.safetensors: ")
        assert f"--preprocess scale:factor={factor}" in text
        assert "\n" not in text
        mended = preprocess(standing(size=size), [f"scale:factor={factor}"])
        assert size_warning(mended) is None

    @pytest.mark.parametrize("size", [0.18, 0.35, 0.5, 0.65, 1.4])
    def test_people_of_any_size_are_fine(self, size: float) -> None:
        assert size_warning(standing(size=size)) is None

    def test_no_metres_where_there_are_none(self) -> None:
        assert size_warning(standing(BARE, 300)) is None, "no body"
        data = standing(size=300)
        flat = dataclasses.replace(data, coords=data.coords[..., :2])
        assert size_warning(flat) is None, "pixels"
        assert size_warning(standing(size=500), steps=["scale:unit=torso"]) is None

    def test_beside_training_data_everything_is_compared(self) -> None:
        assert size_warning(standing(size=500), 480) is None
        data = standing(BARE, 300)
        flat = dataclasses.replace(data, coords=data.coords[..., :2])
        text = size_warning(flat, 1.5)
        assert text is not None
        assert "those of the training had 1.5" in text
        assert "scale:factor=0.00" in text
        text = size_warning(standing(size=0.5), 1.64)
        assert text is not None
        assert "scale:factor=3.281" in text, "training data in feet"

    def test_bodies_of_one_size_beside_metres(self) -> None:
        data = preprocess(standing(), ["center", "scale:unit=torso"])
        assert "its bodies were made of one size" in str(size_warning(data, 0.5))
        assert size_warning(data) is None
        assert size_warning(standing(), 0.5) is None

    @given(power=st.integers(-6, 6), reference=st.sampled_from([None, 0.45, 450.0]))
    @settings(max_examples=20, deadline=None)
    def test_a_thousandfold_is_always_said(self, power: int, reference: float | None) -> None:
        size = 0.5 * 10.0**power
        texts = [size_warning(standing(size=one), reference) for one in (size, 1000 * size)]
        assert texts != [None, None]


class TestAudit:
    def test_it_is_a_finding(self) -> None:
        report = audit(standing(size=500))
        (found,) = [finding for finding in report["findings"] if finding["kind"] == "units"]
        assert "scale:factor=0.001" in found["text"]
        assert report["body_size"]["trunk"] == pytest.approx(500)
        for text in (format_audit(report), format_page(report, "x")):
            assert "scale:factor=0.001" in text
            assert "trunk of 500" in text

    def test_none_in_metres(self) -> None:
        report = audit(standing())
        assert not [finding for finding in report["findings"] if finding["kind"] == "units"]
        assert report["body_size"]["warning"] is None
