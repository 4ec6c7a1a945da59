from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons, Split

from .making import V, assert_same, make


class TestFromClips:
    def test_bodies_lie_one_after_another(self) -> None:
        rng = np.random.default_rng(1)
        clips = [rng.normal(size=(5, 1, V, 3)), rng.normal(size=(3, 2, V, 3)).astype(np.float16)]
        data = PackedSkeletons.from_clips(clips, layout="coco17")
        assert data.offsets.tolist() == [0, 5, 8, 11]
        assert data.body_clip.tolist() == [0, 1, 1]
        assert data.body_start.tolist() == [0, 0, 0]
        assert data.coords.dtype == torch.float32
        assert np.array_equal(data.coords[5:8].numpy(), clips[1][:, 0].astype(np.float32))
        assert np.array_equal(data.coords[8:11].numpy(), clips[1][:, 1].astype(np.float32))
        assert (data.num_clips, data.num_bodies, data.num_frames) == (2, 3, 11)
        assert data.names == ["clip0", "clip1"]
        assert data.labels.tolist() == [-1, -1]
        assert data.fps.isnan().all()
        assert data.valid is None
        assert data.device.type == "cpu"
        assert "2 clips, 3 bodies, 11 frames of (17, 3), float32" in repr(data)

    def test_text_columns_become_codes(self) -> None:
        data = make()
        assert data.columns["subject"].tolist() == [1, 0, 1, 2]
        assert data.column_names["subject"] == ("s1", "s2", "s3")
        assert data.columns["view"].tolist() == [1, 2, 3, 1]
        assert data.columns["view"].dtype == torch.int64

    def test_clips_without_frames_or_bodies_are_dropped_and_listed(self) -> None:
        clips = [np.zeros((0, 1, V, 3)), np.ones((4, 1, V, 3)), np.zeros((3, 2, V, 3)), np.ones((1, 1, V, 3))]
        mask = torch.tensor([True, True, False, False])
        data = PackedSkeletons.from_clips(
            clips,
            layout="coco17",
            labels=[0, 1, 2, 3],
            fps=[1, 2, 3, 4],
            columns={"view": [5, 6, 7, 8]},
            splits={"official": Split(mask, ~mask)},
        )
        assert data.dropped == {"clip0": "no frames", "clip2": "no body"}
        assert data.names == ["clip1", "clip3"]
        assert data.labels.tolist() == [1, 3]
        assert data.fps.tolist() == [2, 4]
        assert data.columns["view"].tolist() == [6, 8]
        assert data.splits["official"].test.tolist() == [False, True]
        summary = data.summary()
        assert summary["dropped_clips"] == {"clip0": "no frames", "clip2": "no body"}
        assert summary["single_frame_clips"] == 1
        assert "dropped clips" in str(summary)
        assert "clip0: no frames" in str(summary)

    def test_empty_bodies_are_dropped_on_demand(self) -> None:
        clip = np.zeros((4, 3, V, 3))
        clip[2, 1, 5, 0] = 1.0
        assert PackedSkeletons.from_clips([clip], layout="coco17").num_bodies == 1
        kept = PackedSkeletons.from_clips([clip], layout="coco17", drop_empty_bodies=False)
        assert kept.num_bodies == 3

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_name_clip_frame_body_and_joint(self, bad: float) -> None:
        clips = [np.ones((4, 2, V, 3)), np.ones((6, 2, V, 3))]
        clips[1][5, 1, 7, 2] = bad
        with pytest.raises(ValueError, match=r"clip 1 \('clip1'\), frame 5, body 1, joint 7: .* not finite"):
            PackedSkeletons.from_clips(clips, layout="coco17")

    def test_missing_joints_are_zero_and_may_be_nan_before(self) -> None:
        clip, seen = np.ones((3, 2, V, 2)), np.ones((3, 2, V), dtype=bool)
        clip[1, 1, 4], seen[1, 1, 4] = np.nan, False
        data = PackedSkeletons.from_clips([clip], layout="coco17", valid=[seen])
        assert data.valid is not None
        assert data.valid.shape == (6, V)
        assert not data.valid[4, 4]
        assert int((~data.valid).sum()) == 1
        assert data.coords[4, 4].tolist() == [0, 0]
        assert data.summary()["missing_joints"] == 1

    @pytest.mark.parametrize(
        ("clips", "message"),
        [
            ([], "clips is empty"),
            ([np.ones((3, V, 3))], r"clip 0 \('clip0'\) has shape \(3, 17, 3\).*clip\[:, None\]"),
            ([np.ones((3, 1, 25, 3))], "25 joints, but layout 'coco17' has 17"),
            ([np.ones((3, 1, V, 4))], "4 channels, expected 2 or 3"),
            (
                [np.ones((3, 1, V, 3)), np.ones((3, 1, V, 2))],
                "clip 1 .* has 2 channels, the clips before it have 3",
            ),
            ([np.zeros((3, 1, V, 3)), np.ones((0, 1, V, 3))], "none of the 2 clips has a frame with a body"),
        ],
    )
    def test_bad_clips(self, clips: list[np.ndarray], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            PackedSkeletons.from_clips(clips, layout="coco17")

    def test_other_bad_arguments(self) -> None:
        with pytest.raises(TypeError, match=r"clip 0 .* dtype .*expected real numbers"):
            PackedSkeletons.from_clips([np.ones((3, 1, V, 3), dtype=complex)], layout="coco17")
        with pytest.raises(ValueError, match=r"splits\['x'\] has masks of 3 and 4 for 4 clips"):
            make(splits={"x": Split(torch.ones(3) > 0, torch.ones(4) < 0)})
        with pytest.raises(ValueError, match="labels has 3 entries for 4 clips"):
            make(labels=[0, 1, 2])
        with pytest.raises(ValueError, match="view has 1 entries for 4 clips"):
            make(columns={"view": [1]})
        with pytest.raises(TypeError, match=r"columns\['view'\] has dtype object"):
            make(columns={"view": [None] * 4})
        with pytest.raises(ValueError, match="did you mean 'coco17'"):
            make(layout="coco18")
        with pytest.raises(ValueError, match=r"valid of clip 0 .* expected bool of shape"):
            make(valid=[np.ones((5, 1, V))] * 4)
        with pytest.raises(ValueError, match="labels holds 2, but label_names has 2 classes"):
            make(labels=[0, 1, 2, 0])
        with pytest.raises(ValueError, match="labels holds -2"):
            make(labels=[0, 1, -2, 0])


class TestStructure:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {"offsets": torch.tensor([0, 5, 8, 11, 12, 13])},
                "offsets goes from 0 to 13, expected 0 to the 14 frames",
            ),
            ({"offsets": torch.tensor([1, 5, 8, 11, 12, 14])}, "offsets goes from 1"),
            ({"offsets": torch.tensor([0, 5, 5, 11, 12, 14])}, "body 1 has 0 frames"),
            ({"offsets": torch.tensor([0, 8, 5, 11, 12, 14])}, "body 1 has -3 frames"),
            ({"offsets": torch.tensor([0, 5, 14])}, "offsets has 3 .* for 5 bodies"),
            ({"body_clip": torch.tensor([0, 1, 0, 2, 3])}, "bodies of a clip are neighbours"),
            ({"body_clip": torch.tensor([0, 1, 1, 1, 3])}, "every clip has one"),
            ({"body_clip": torch.tensor([0, 0, 1, 2, 2])}, "goes from 0 to 2, expected 0 to 3"),
            ({"body_start": torch.tensor([0, 0, -1, 0, 0])}, "body_start holds -1"),
            ({"coords": torch.zeros(14, V, 4)}, r"coords has shape \(14, 17, 4\)"),
            ({"coords": torch.zeros(14, V, 3, dtype=torch.float64)}, r"coords has dtype torch.float64"),
            ({"coords": torch.zeros(14, 25, 3)}, r"expected \(frames, 17, 2 or 3\)"),
            ({"labels": torch.zeros(4)}, "labels has dtype torch.float32, expected torch.int64"),
            ({"fps": torch.ones(3)}, "fps has shape"),
            ({"names": ["a"]}, "names has 1 entries for 4 clips"),
            ({"columns": {"view": torch.zeros(3)}}, r"columns\['view'\] has shape \(3,\)"),
            ({"valid": torch.ones(14, V)}, "valid is torch.float32"),
            ({"splits": {"x": Split(torch.ones(4), torch.ones(4))}}, r"splits\['x'\].train has dtype"),
            (
                {"splits": {"x": Split(torch.ones(4) > 0, torch.ones(4) > 0)}},
                r"clip 0 \('a'\) is in train and in test",
            ),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(make(), **fields)

    def test_fields_must_be_tensors(self) -> None:
        with pytest.raises(TypeError, match="offsets is a list"):
            dataclasses.replace(make(), offsets=[0, 1])  # type: ignore[arg-type]

    def test_check_names_clip_and_frame(self) -> None:
        data = dataclasses.replace(make(), body_start=torch.tensor([0, 0, 4, 0, 0]))
        data.check()
        data.coords[9, 3, 1] = float("nan")
        with pytest.raises(ValueError, match=r"clip 1 \('b'\), frame 5: coordinates are not finite"):
            data.check()


class TestViews:
    def test_split(self) -> None:
        data = make()
        assert data.split("official").train.tolist() == [True, False, True, False]
        with pytest.raises(ValueError, match=r"unknown split 'offical'.*did you mean 'official'"):
            data.split("offical")
        with pytest.raises(ValueError, match="unknown split 'x': the data set has no split"):
            make(splits={}).split("x")

    def test_select_by_mask_and_by_indices(self) -> None:
        data = dataclasses.replace(make(), body_start=torch.tensor([0, 0, 2, 0, 1]))
        assert_same(data.select(torch.ones(4, dtype=torch.bool)), data)
        some = data.select([3, 1])
        assert some.names == ["d", "b"]
        assert some.labels.tolist() == [1, 0]
        assert some.offsets.tolist() == [0, 2, 5, 8]
        assert some.body_clip.tolist() == [0, 1, 1]
        assert some.body_start.tolist() == [1, 0, 2]
        assert torch.equal(some.coords, torch.cat([data.coords[12:14], data.coords[5:11]]))
        assert some.columns["subject"].tolist() == [2, 0]
        assert some.splits["official"].test.tolist() == [True, True]
        assert data.select(np.array([False, True, False, True])).names == ["b", "d"]

    @pytest.mark.parametrize(
        ("clips", "message"),
        [
            ([True, False], "mask of shape"),
            ([False] * 4, "at least one clip"),
            ([4], "names clip 4, expected 0 to 3"),
            ([-1, 2], "names clip -1"),
            ([1.0], "expected bool"),
            ([[1]], "expected a mask or indices"),
        ],
    )
    def test_bad_selections(self, clips: list[Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make().select(clips)

    def test_clip_frames_reach_to_the_last_body(self) -> None:
        data = dataclasses.replace(make(), body_start=torch.tensor([0, 0, 2, 0, 1]))
        assert data.clip_frames().tolist() == [5, 5, 1, 3]

    def test_summary(self) -> None:
        summary = make().summary()
        assert (summary["clips"], summary["bodies"], summary["frames"]) == (4, 5, 14)
        assert summary["clip_frames"] == {"shortest": 1, "median": 2, "longest": 5}
        assert summary["bodies_per_clip"] == {1: 3, 2: 1}
        assert summary["splits"] == {"official": {"train": 2, "test": 2}}
        assert summary["unlabelled_clips"] == 1
        assert summary["classes"] == 2
        assert summary["fps"] == [30.0]
        json.dumps(summary)

    @pytest.mark.gpu
    def test_to_a_gpu_and_back(self) -> None:
        data = make()
        moved = data.to("cuda")
        assert moved.splits["official"].train.device.type == moved.columns["view"].device.type == "cuda"
        assert moved.fingerprint() == data.fingerprint()
        assert_same(moved.select([2, 0]).to("cpu"), data.select([2, 0]))


class TestHalf:
    def test_two_metres_is_where_the_spacing_passes_a_millimetre(self) -> None:
        below = np.nextafter(np.float16(2), np.float16(0))
        assert np.spacing(below) < 1e-3 < np.spacing(np.float16(2))

    def test_half_keeps_a_millimetre(self) -> None:
        data = make()
        data.coords.clamp_(-2, 2)
        half = data.half()
        assert half.coords.dtype == torch.float16
        assert float((half.coords.float() - data.coords).abs().max()) < 0.5e-3
        half.check()

    def test_far_coordinates_are_refused_with_their_clip(self, tmp_path: Path) -> None:
        data = make()
        data.coords.clamp_(-1, 1)
        data.coords[6, 2, 0] = -3.25
        with pytest.raises(
            ValueError, match=r"clip 1 \('b'\), frame 1: a coordinate of 3.25 m does not fit float16"
        ):
            data.half()
        forced = dataclasses.replace(data, coords=data.coords.half())
        with pytest.raises(ValueError, match="does not fit float16"):
            forced.save(tmp_path / "x.safetensors")
        assert list(tmp_path.iterdir()) == []
