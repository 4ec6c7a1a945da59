from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fastamr.data import PackedSkeletons, Split, parse_steps, preprocess
from fastamr.data.preprocessing.apply import STEPS, AlignBody, Center, Scale
from fastamr.skeleton import SkeletonLayout, get_layout

JOINTS = ("pelvis", "left_hip", "right_hip", "chest", "hand")
BODY = SkeletonLayout("body", JOINTS, (-1, 0, 0, 0, 3), ((1, 2),), hips=(1, 2), spine=(0, 3))
# Facing +z upright: the left hip at +x.
POSE = np.array([[0, 0, 0], [0.1, 0, 0], [-0.1, 0, 0], [0, 0.5, 0], [0.3, 0.4, 0.2]])


def rotation(seed: int, channels: int = 3) -> np.ndarray:
    """A random rotation matrix, by orthogonalisation."""
    matrix, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(channels, channels)))
    matrix = matrix * np.sign(np.diag(triangle))
    matrix[:, 0] *= np.sign(np.linalg.det(matrix))
    return matrix


def pack(*clips: Any, layout: SkeletonLayout = BODY, **fields: Any) -> PackedSkeletons:
    return PackedSkeletons.from_clips([np.asarray(clip) for clip in clips], layout=layout, **fields)


def moving(frames: int, seed: int = 0) -> np.ndarray:
    """One body ``(frames, 5, 3)``: the pose walking away with a waving hand."""
    rng = np.random.default_rng(seed)
    motion = np.tile(POSE, (frames, 1, 1)) + np.arange(frames)[:, None, None] * [0.0, 0.02, 0.1]
    motion[:, 4] += rng.normal(scale=0.1, size=(frames, 3))
    return motion


def close(tensor: torch.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(tensor.numpy(), expected, atol=tolerance)


class TestCenter:
    def test_first_frame_keeps_the_path(self) -> None:
        motion = moving(4) + np.array([1.0, 2.0, 3.0])
        data = preprocess(pack(motion[:, None]), ["center"])
        close(data.coords, motion - motion[0, 0])
        assert data.coords[0, 0].tolist() == [0, 0, 0]
        assert data.coords[3, 0].abs().sum() > 0.3

    def test_every_frame_takes_the_path_out(self) -> None:
        motion = moving(4) + np.array([1.0, 2.0, 3.0])
        data = preprocess(pack(motion[:, None]), ["center:frame=every"])
        close(data.coords, motion - motion[:, :1])

    @pytest.mark.parametrize("joint", ["hand", 4])
    def test_other_joints(self, joint: str | int) -> None:
        motion = moving(3)
        close(preprocess(pack(motion[:, None]), [Center(joint=joint)]).coords, motion - motion[0, 4])

    def test_hips_are_the_point_between_them(self) -> None:
        motion = moving(3) + np.array([0.0, 0.0, 2.0])
        motion[:, 1] += [0.0, 0.2, 0.0]
        expected = motion - (motion[0, 1] + motion[0, 2]) / 2
        close(preprocess(pack(motion[:, None]), [Center(joint="hips")]).coords, expected)

    def test_each_body_its_own_origin_or_the_first_body_s(self) -> None:
        one, two = moving(3) + np.array([1.0, 0.0, 0.0]), moving(3, 1) + np.array([5.0, 0.0, 0.0])
        other = moving(2) - np.array([7.0, 0.0, 0.0])
        data = pack(np.stack([one, two], 1), other[:, None])
        own = preprocess(data, ["center"])
        close(own.coords, np.concatenate([one - one[0, 0], two - two[0, 0], other - other[0, 0]]))
        shared = preprocess(data, ["center:per=clip"])
        close(shared.coords, np.concatenate([one - one[0, 0], two - one[0, 0], other - other[0, 0]]))

    def test_empty_frames_stay_empty_and_do_not_set_the_origin(self) -> None:
        motion = moving(5) + np.array([1.0, 2.0, 3.0])
        motion[[0, 3]] = 0
        first = preprocess(pack(motion[:, None]), ["center"])
        expected = motion - motion[1, 0]
        expected[[0, 3]] = 0
        close(first.coords, expected)
        every = preprocess(pack(motion[:, None]), ["center:frame=every"])
        assert every.coords[[0, 3]].abs().sum() == 0

    def test_a_missing_joint_takes_its_latest_place(self) -> None:
        motion = moving(4) + np.array([1.0, 2.0, 3.0])
        seen = np.ones((4, 1, 5), dtype=bool)
        seen[[0, 2], 0, 0] = False
        data = preprocess(pack(motion[:, None], valid=[seen]), ["center:frame=every"])
        expected = motion - motion[[1, 1, 1, 3], :1]
        expected[[0, 2], 0] = 0
        close(data.coords, expected)

    def test_a_body_that_is_never_there_is_left_alone(self) -> None:
        clip = np.stack([moving(3) + 1.0, np.zeros((3, 5, 3))], 1)
        data = preprocess(pack(clip, drop_empty_bodies=False), ["center", "align_body", "scale:unit=torso"])
        assert data.num_bodies == 2
        assert data.coords[3:].abs().sum() == 0
        assert data.coords.isfinite().all()

    def test_bad_options(self) -> None:
        with pytest.raises(ValueError, match=r"unknown frame of step 'center' 'evry'.*'every'"):
            Center(frame="evry")
        with pytest.raises(ValueError, match="unknown per of step 'center'"):
            Center(per="person")
        with pytest.raises(ValueError, match="needs frame='first'"):
            Center(frame="every", per="clip")
        with pytest.raises(ValueError, match=r"unknown joint of layout 'body' 'hnad'.*did you mean 'hand'"):
            preprocess(pack(moving(2)[:, None]), ["center:joint=hnad"])
        legless = dataclasses.replace(BODY, hips=None)
        with pytest.raises(ValueError, match="layout 'body' has no hips"):
            preprocess(pack(moving(2)[:, None], layout=legless), ["center:joint=hips"])


class TestAlignBody:
    @pytest.mark.parametrize("seed", range(5))
    def test_any_view_becomes_the_same(self, seed: int) -> None:
        motion = moving(6)
        data = preprocess(pack((motion @ rotation(seed).T)[:, None]), ["align_body"])
        close(data.coords, motion)

    def test_left_becomes_right_only_by_turning(self) -> None:
        motion = moving(6, 3) @ rotation(9).T + np.array([0.3, 0.2, 0.1])
        data = preprocess(pack(motion[:, None]), ["align_body"])
        left, right, lower, upper = (data.coords[0, joint] for joint in (1, 2, 0, 3))
        hips, spine = left - right, upper - lower
        close(hips, [0.2, 0, 0])
        assert spine[1] > 0
        assert abs(float(spine[2])) < 1e-6
        flat = data.coords.reshape(-1, 3).numpy()
        before = motion.reshape(-1, 3)
        np.testing.assert_allclose(flat @ flat.T, before @ before.T, atol=1e-5)
        assert np.linalg.det(np.linalg.lstsq(before, flat, rcond=None)[0]) == pytest.approx(1, abs=1e-4)

    def test_a_leaning_spine_stays_in_the_plane(self) -> None:
        pose = POSE.copy()
        pose[3] = [0.2, 0.5, 0.3]
        data = preprocess(pack(pose[None, None]), ["align_body"])
        close(data.coords[0, 3], [0.2, math.hypot(0.5, 0.3), 0])

    def test_the_first_sound_frame_decides(self) -> None:
        motion = moving(5)
        motion[0] = 0
        motion[1, 1] = motion[1, 2]
        motion[2, 3] = motion[2, 0] + [0.5, 0.01, 0.0]
        turn = rotation(2)
        data = preprocess(pack((motion @ turn.T)[:, None]), ["align_body"])
        close(data.coords, motion)

    def test_joints_that_were_not_seen_do_not_decide(self) -> None:
        motion = moving(3)
        seen = np.ones((3, 1, 5), dtype=bool)
        seen[0, 0, 2] = False
        wrong = motion @ rotation(2).T
        wrong[0, 2] = 9.0
        data = preprocess(pack(wrong[:, None], valid=[seen]), ["align_body"])
        expected = motion.copy()
        expected[0, 2] = 0
        close(data.coords, expected)

    def test_a_body_without_a_sound_frame_is_left_alone(self) -> None:
        motion = moving(3)
        motion[:, 1] = motion[:, 2]
        data = preprocess(pack(motion[:, None], moving(3)[:, None] @ rotation(1).T), ["align_body"])
        close(data.coords[:3], motion)
        close(data.coords[3:], moving(3))

    def test_each_body_its_own_axes_or_the_first_body_s(self) -> None:
        one, two = moving(3) @ rotation(1).T, moving(3, 1) @ rotation(4).T
        data = pack(np.stack([one, two], 1))
        close(preprocess(data, ["align_body"]).coords[3:], moving(3, 1))
        shared = preprocess(data, ["align_body:per=clip"])
        close(shared.coords, np.concatenate([moving(3), two @ rotation(1)]))

    def test_two_channels_turn_the_spine_upright(self) -> None:
        flat = moving(4)[..., :2]
        angle = 2.5
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        data = preprocess(pack((flat @ turn.T)[:, None]), ["align_body"])
        close(data.coords, flat)

    def test_vertical_turns_about_y_only(self) -> None:
        tilt = np.array([[1, 0, 0], [0, math.cos(0.5), -math.sin(0.5)], [0, math.sin(0.5), math.cos(0.5)]])
        bowing = moving(4) @ tilt.T
        yaw = np.array([[math.cos(2), 0, math.sin(2)], [0, 1, 0], [-math.sin(2), 0, math.cos(2)]])
        data = preprocess(pack((bowing @ yaw.T)[:, None]), ["align_body:up=vertical"])
        close(data.coords, bowing)

    def test_a_layout_without_a_spine_uses_hips_and_shoulders(self) -> None:
        layout = get_layout("coco17")
        pose = np.random.default_rng(0).normal(scale=0.1, size=(17, 3))
        pose[[5, 6]] = [[0.2, 0.5, 0.0], [-0.2, 0.5, 0.0]]
        pose[[11, 12]] = [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]
        data = preprocess(pack((pose @ rotation(3).T)[None, None], layout=layout), ["align_body"])
        close(data.coords[0], pose)

    def test_bad_options(self) -> None:
        with pytest.raises(ValueError, match="unknown per of step 'align_body'"):
            AlignBody(per="x")
        with pytest.raises(ValueError, match=r"unknown up of step 'align_body' 'vertcal'.*'vertical'"):
            AlignBody(up="vertcal")
        with pytest.raises(
            ValueError, match=r"tolerance of step 'align_body' is 1, expected a number in \[0, 1\)"
        ):
            AlignBody(tolerance=1)
        with pytest.raises(ValueError, match="needs 3 channels, the data has 2"):
            preprocess(pack(moving(2)[:, None, :, :2]), ["align_body:up=vertical"])
        spineless = SkeletonLayout("bare", JOINTS, (-1, 0, 0, 0, 3))
        with pytest.raises(ValueError, match="neither a spine nor shoulders"):
            preprocess(pack(moving(2)[:, None], layout=spineless), ["align_body"])
        with pytest.raises(ValueError, match="has no hips"):
            preprocess(pack(moving(2)[:, None], layout=dataclasses.replace(BODY, hips=None)), ["align_body"])


class TestScale:
    def test_factor(self) -> None:
        motion = moving(3)
        close(preprocess(pack(motion[:, None]), [{"name": "scale", "factor": 0.01}]).coords, motion * 0.01)

    def test_torso_makes_the_median_spine_one(self) -> None:
        motion = moving(5)
        motion[1, 3] = motion[1, 0] + [0.0, 4.0, 0.0]
        small = moving(4) * 0.3
        data = preprocess(pack(motion[:, None], small[:, None]), ["scale:unit=torso,factor=2"])
        close(data.coords, np.concatenate([motion / 0.5 * 2, small / 0.15 * 2]), 1e-4)

    def test_torso_of_the_first_body(self) -> None:
        clip = np.stack([moving(3), moving(3, 1) * 0.5], 1)
        data = preprocess(pack(clip), [Scale(unit="torso", per="clip")])
        close(data.coords, np.concatenate([clip[:, 0], clip[:, 1]]) / 0.5)

    def test_bad_options(self) -> None:
        for factor in (0, -1, math.inf, math.nan):
            with pytest.raises(ValueError, match=r"factor of step 'scale' is .* expected a positive number"):
                Scale(factor=factor)
        with pytest.raises(ValueError, match=r"unknown unit of step 'scale' 'toros'.*'torso'"):
            Scale(unit="toros")
        with pytest.raises(ValueError, match="unknown per of step 'scale'"):
            Scale(per="x")


class TestDropping:
    @pytest.fixture
    def data(self) -> PackedSkeletons:
        """Three clips: a body with a gap beside a late one, an empty one beside nothing, one without gaps."""
        one, late = moving(6) + 1.0, moving(6, 1) + 1.0
        one[[0, 3]] = 0
        late[[0, 1, 5]] = 0
        mask = torch.tensor([True, False, False])
        return pack(
            np.stack([one, late], 1),
            np.zeros((2, 1, 5, 3)),
            moving(3)[:, None] + 1.0,
            drop_empty_bodies=False,
            names=["a", "b", "c"],
            labels=[0, 1, 2],
            columns={"view": [7, 8, 9]},
            splits={"official": Split(mask, ~mask)},
        )

    def test_all_empty_frames(self, data: PackedSkeletons) -> None:
        result = preprocess(data, ["drop_empty_frames"])
        assert torch.equal(result.coords, data.coords[[1, 2, 4, 5, 8, 9, 10, 14, 15, 16]])
        assert result.offsets.tolist() == [0, 4, 7, 10]
        assert result.body_start.tolist() == [1, 2, 0]
        assert result.body_clip.tolist() == [0, 0, 1]
        assert result.names == ["a", "c"]
        assert result.labels.tolist() == [0, 2]
        assert result.columns["view"].tolist() == [7, 9]
        assert result.splits["official"].test.tolist() == [False, True]
        assert result.dropped == {"b": "no body"}
        assert data.num_clips == 3

    def test_only_the_ends_keep_the_timing(self, data: PackedSkeletons) -> None:
        result = preprocess(data, ["drop_empty_frames:where=ends"])
        assert torch.equal(result.coords, data.coords[[1, 2, 3, 4, 5, 8, 9, 10, 14, 15, 16]])
        assert result.offsets.tolist() == [0, 5, 8, 11]
        assert result.body_start.tolist() == [1, 2, 0]
        assert result.clip_frames().tolist() == [6, 3]

    def test_starts_add_up(self, data: PackedSkeletons) -> None:
        moved = dataclasses.replace(data, body_start=torch.tensor([10, 20, 0, 5]))
        assert preprocess(moved, ["drop_empty_frames"]).body_start.tolist() == [11, 22, 5]

    def test_empty_bodies(self, data: PackedSkeletons) -> None:
        result = preprocess(data, ["drop_empty_bodies"])
        assert result.num_frames == 15
        assert result.body_start.tolist() == [0, 0, 0]
        assert result.dropped == {"b": "no body"}

    def test_missing_joints_follow_their_frames(self, data: PackedSkeletons) -> None:
        seen = torch.rand(data.num_frames, 5) < 0.5
        result = preprocess(dataclasses.replace(data, valid=seen), ["drop_empty_bodies"])
        assert result.valid is not None
        assert torch.equal(result.valid, torch.cat([seen[:12], seen[14:]]))

    def test_nothing_left(self) -> None:
        empty = pack(np.zeros((2, 1, 5, 3)), drop_empty_bodies=False)
        with pytest.raises(ValueError, match="every frame of the 1 clips is empty"):
            preprocess(empty, ["drop_empty_frames"])

    def test_bad_options(self) -> None:
        with pytest.raises(ValueError, match=r"unknown where of step 'drop_empty_frames' 'end'.*'ends'"):
            parse_steps(["drop_empty_frames:where=end"])


class TestSteps:
    def test_steps_are_recorded_with_all_parameters(self) -> None:
        data = pack(moving(3)[:, None])
        result = preprocess(preprocess(data, ["center"]), ["scale:factor=2"])
        assert result.steps == (
            {"name": "center", "joint": "root", "frame": "first", "per": "body"},
            {"name": "scale", "factor": 2, "unit": None, "per": "body"},
        )
        assert data.steps == ()
        assert parse_steps(result.steps) == (Center(), Scale(factor=2))

    def test_no_steps_change_nothing(self) -> None:
        data = pack(moving(3)[:, None])
        assert preprocess(data, []) is data

    @pytest.mark.parametrize("name", STEPS)
    def test_every_step_is_built_by_its_name(self, name: str) -> None:
        text = "convert:layout=ntu25" if name == "convert" else name
        (step,) = parse_steps(yaml.safe_load(f"[{text!r}]"))
        assert step.name == name
        assert parse_steps([step.to_dict()]) == (step,)
        assert parse_steps(text) == (step,)
        data = pack(moving(3)[:, None], fps=30.0)
        assert preprocess(data, [step]).num_frames == 3

    def test_parameters_in_all_forms(self) -> None:
        expected = (Center(joint="hips", frame="every"), Center(joint=4))
        assert parse_steps(["center:joint=hips,frame=every", "center:joint=4"]) == expected
        assert (
            parse_steps([{"name": "center", "joint": "hips", "frame": "every"}, Center(joint=4)]) == expected
        )

    def test_bad_steps(self) -> None:
        with pytest.raises(ValueError, match=r"unknown pre-processing step 'centre'.*did you mean 'center'"):
            parse_steps(["centre"])
        with pytest.raises(
            ValueError, match=r"unknown parameter of step 'scale' 'facter'.*did you mean 'factor'"
        ):
            parse_steps(["scale:facter=2"])
        with pytest.raises(ValueError, match="step 'drop_empty_bodies' takes no parameter, got 'x'"):
            parse_steps(["drop_empty_bodies:x=1"])
        with pytest.raises(TypeError, match="step 3: expected a name"):
            parse_steps([3])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="with a 'name'"):
            parse_steps([{"factor": 2}])

    def test_float16_is_worked_on_in_float32(self) -> None:
        data = pack(moving(3)[:, None]).half()
        assert preprocess(data, ["center"]).coords.dtype == torch.float32

    def test_results_do_not_depend_on_the_size_of_the_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clips = [moving(frames, frames)[:, None] @ rotation(frames).T + 1.0 for frames in (3, 5, 2, 7)]
        steps = ["center", "align_body", "scale:unit=torso"]
        expected = preprocess(pack(*clips), steps)
        for module in ("rebuild", "body_frame"):
            monkeypatch.setattr(f"fastamr.data.preprocessing.{module}._CHUNK", 4)
        assert torch.equal(preprocess(pack(*clips), steps).coords, expected.coords)

    def test_many_clips_take_seconds(self) -> None:
        clips, frames = 20_000, 8
        rows = clips * frames
        data = PackedSkeletons(
            coords=torch.randn(rows, 25, 3),
            offsets=torch.arange(0, rows + 1, frames),
            body_clip=torch.arange(clips),
            body_start=torch.zeros(clips, dtype=torch.int64),
            labels=torch.zeros(clips, dtype=torch.int64),
            fps=torch.ones(clips),
            layout=get_layout("ntu25"),
            names=["x"] * clips,
        )
        start = time.process_time()
        preprocess(data, ["center", "align_body", "scale:unit=torso", "drop_empty_frames"])
        assert time.process_time() - start < 10
