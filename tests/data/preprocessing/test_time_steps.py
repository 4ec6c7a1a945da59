"""Steps that change the frames, and those that change all coordinates alike; the field's recipes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, apply_missing, parse_steps, preprocess
from fastamr.data.preprocessing.geometry import FitBox, Flip
from fastamr.data.preprocessing.presets import PRESETS, preset_steps
from fastamr.data.preprocessing.time import Resample
from fastamr.skeleton import SkeletonLayout
from fastamr.training.setup import steps_as_text

TWO = SkeletonLayout("two", ("a", "b"), (-1, 0))


def pack(*clips: Any, layout: Any = TWO, **fields: Any) -> PackedSkeletons:
    return PackedSkeletons.from_clips([np.asarray(clip) for clip in clips], layout=layout, **fields)


def line(frames: int, slope: float = 1.0, start: float = 5.0) -> np.ndarray:
    """One body that walks along a straight line, ``(frames, 1, 2, 3)``."""
    path = start + slope * np.arange(frames)
    return np.stack([np.stack([path, path * 2, -path], -1), np.stack([path + 1, path, path], -1)], 1)[:, None]


def with_starts(data: PackedSkeletons, *starts: int) -> PackedSkeletons:
    data.body_start = torch.tensor(starts)
    return data


class TestResample:
    @settings(max_examples=60, deadline=None)
    @given(
        old=st.floats(3, 120),
        new=st.floats(3, 120),
        lengths=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), min_size=1, max_size=4),
    )
    def test_straight_lines_stay_straight(
        self, old: float, new: float, lengths: list[tuple[int, int]]
    ) -> None:
        data = pack(*[line(count) for count, _ in lengths], fps=old)
        data = with_starts(data, *[start for _, start in lengths])
        result = preprocess(data, [{"name": "resample", "fps": new}])
        ratio = float(np.float32(old)) / new
        for body, (count, start) in enumerate(lengths):
            rows = result.coords[int(result.offsets[body]) : int(result.offsets[body + 1]), 0, 0].numpy()
            times = (int(result.body_start[body]) + np.arange(len(rows))) * ratio
            inside = np.clip(times, start, start + count - 1)
            np.testing.assert_allclose(rows, 5 + inside - start, atol=1e-3)
            if len(rows) > 1:
                np.testing.assert_allclose(times, inside, atol=1e-6)
                # No frame is left out at either end.
                assert times[0] - ratio < start + 1e-6
                assert times[-1] + ratio > start + count - 1 - 1e-6
        assert result.fps.tolist() == pytest.approx([new] * len(lengths))

    def test_the_same_rate_changes_nothing(self) -> None:
        rng = np.random.default_rng(0)
        data = pack(rng.normal(size=(7, 2, 2, 3)), rng.normal(size=(3, 1, 2, 3)), fps=30.0)
        result = preprocess(data, ["resample:fps=30"])
        assert torch.equal(result.coords, data.coords)
        assert torch.equal(result.offsets, data.offsets)

    def test_half_and_double(self) -> None:
        data = with_starts(pack(line(5), line(4), fps=20.0), 0, 1)
        half = preprocess(data, ["resample:fps=10"])
        assert half.offsets.tolist() == [0, 3, 5]
        assert half.body_start.tolist() == [0, 1]
        assert half.coords[:, 0, 0].tolist() == [5, 7, 9, 6, 8]
        double = preprocess(data, ["resample:fps=40"])
        assert double.offsets.tolist() == [0, 9, 16]
        assert double.body_start.tolist() == [0, 2]
        assert double.coords[:9, 0, 0].tolist() == [5, 5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9]

    @pytest.mark.parametrize("step", ["resample:fps=1e9", "resample:fps=3000000"])
    def test_a_rate_that_would_fill_the_memory_is_refused(self, step: str) -> None:
        with pytest.raises(
            ValueError, match=r"of step 'resample' makes .* frames of 9, expected at most 1000000"
        ):
            preprocess(pack(line(5), line(4), fps=20.0), [step])

    @pytest.mark.parametrize(
        "step", ["resample:fps=1e12", "resample:fps=1e300", "resample:fps=30,source=1e-12"]
    )
    def test_a_rate_that_nothing_has_is_refused(self, step: str) -> None:
        with pytest.raises(
            ValueError, match=r"of step 'resample' is .*, expected 1e-09 to 1e\+09 frames a second"
        ):
            parse_steps([step])

    def test_a_number_of_frames(self) -> None:
        clip = np.concatenate([line(9), line(9, 2.0)], axis=1)
        data = pack(clip, line(1), line(3), fps=[20.0, 20.0, np.nan])
        result = preprocess(data, ["resample:frames=5"])
        assert result.offsets.diff().tolist() == [5, 5, 5, 5]
        assert result.coords[:5, 0, 0].tolist() == [5, 7, 9, 11, 13]
        assert result.coords[5:10, 0, 0].tolist() == [5, 9, 13, 17, 21]
        assert result.coords[10:15, 0, 0].tolist() == [5] * 5
        assert result.coords[15:, 0, 0].tolist() == [5, 5.5, 6, 6.5, 7]
        assert result.clip_frames().tolist() == [5, 5, 5]
        assert result.fps[0] == 10
        assert result.fps[2].isnan()
        one = preprocess(with_starts(data, 0, 8, 0, 0), ["resample:frames=1"])
        assert one.clip_frames().tolist() == [1, 1, 1]
        assert one.coords[:, 0, 0].tolist() == [5, 5, 5, 5]

    def test_missing_joints_and_absent_bodies(self) -> None:
        clip = line(5)
        clip[3] = 0
        seen = np.ones((5, 1, 2), dtype=bool)
        seen[1, 0, 1] = False
        data = preprocess(pack(clip, valid=[seen], fps=10.0), ["resample:fps=40"])
        first, second = data.coords[:, 0, 0], data.coords[:, 1, 0]
        assert first[:9].tolist() == [5, 5.25, 5.5, 5.75, 6, 6.25, 6.5, 6.75, 7]
        # Beside the absent frame 3 (row 12) only the nearer neighbour counts; half-way is the earlier one.
        assert first[9:].tolist() == [7, 7, 0, 0, 0, 0, 9, 9]
        assert second[:9].tolist() == [6, 6, 6, 0, 0, 0, 0, 8, 8]
        assert data.valid is not None
        assert data.valid[:9, 1].tolist() == [True] * 3 + [False] * 4 + [True] * 2

    def test_a_short_body_keeps_a_frame(self) -> None:
        data = with_starts(pack(line(9), line(1, start=3.0), fps=30.0), 0, 4)
        result = preprocess(data, ["resample:fps=10"])
        assert result.offsets.tolist() == [0, 3, 4]
        assert result.body_start.tolist() == [0, 1]
        assert result.coords[3, 0, 0] == 3

    def test_unknown_rates(self) -> None:
        data = pack(line(3), line(3), names=["p", "q"], fps=[10.0, np.nan])
        with pytest.raises(
            ValueError, match=r"frame rate of 1 clips is unknown, the first is clip 1 \('q'\); give"
        ):
            preprocess(data, ["resample:fps=20"])
        assert preprocess(data, ["resample:fps=20,source=20"]).offsets.tolist() == [0, 5, 8]

    @pytest.mark.parametrize("text", ["fps=0", "fps=-3", "fps=fast", "frames=0", "frames=2.5", "source=.nan"])
    def test_bad_options(self, text: str) -> None:
        with pytest.raises(ValueError, match=f"{text.split('=')[0]} of step 'resample' is"):
            parse_steps([f"resample:{text}"])

    def test_it_is_written_as_text_and_read_back(self) -> None:
        data = preprocess(pack(line(3), fps=10.0), [Resample(frames=4), "center"])
        texts = steps_as_text(data, [])
        assert texts[0] == "resample:fps=30.0,frames=4,source=null"
        assert apply_missing(data, texts) is data

    def test_notes_are_no_steps(self) -> None:
        """What a reader noted is not asked of another file, and does not hide the steps."""
        data = pack(line(3), fps=10.0)
        data.steps = ({"name": "note", "about": "validity"},)
        data = preprocess(data, ["center"])
        assert steps_as_text(data, []) == ["center:joint=root,frame=first,per=body"]


class TestCloseGaps:
    def test_frames_without_any_body_go(self) -> None:
        clip = np.concatenate([line(6), line(6, 2.0)], axis=1)
        clip[[0, 3, 4], 0] = 0
        clip[[0, 1, 3], 1] = 0
        data = preprocess(pack(clip, line(2)), ["close_gaps"])
        assert data.offsets.tolist() == [0, 4, 8, 10]
        assert data.body_start.tolist() == [0, 0, 0]
        assert data.coords[:4, 0, 0].tolist() == [6, 7, 0, 10]
        assert data.coords[4:8, 0, 0].tolist() == [0, 9, 13, 15]

    def test_bodies_that_come_and_go(self) -> None:
        """Nobody is there in frames 0 and 1, 5 and 6; the second body comes in frame 4."""
        data = with_starts(pack(np.concatenate([line(3), line(3)], 1), line(3)), 2, 7, 3)
        result = preprocess(data, ["close_gaps"])
        assert result.body_start.tolist() == [0, 3, 0]
        assert torch.equal(result.coords, data.coords)

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 999),
        frames=st.integers(1, 8),
        bodies=st.integers(1, 3),
        share=st.floats(0.1, 0.9),
    )
    def test_against_dense_arrays(self, seed: int, frames: int, bodies: int, share: float) -> None:
        rng = np.random.default_rng(seed)
        clips = []
        for _ in range(3):
            clip = rng.normal(size=(frames, bodies, 2, 3)) + 9
            clip[rng.random((frames, bodies)) < share] = 0
            clips.append(clip)
        clips[0][0, 0] = 1
        data = preprocess(pack(*clips), ["close_gaps"])
        kept = [clip[clip.any(axis=(1, 2, 3))] for clip in clips]
        kept = [clip[:, clip.any(axis=(0, 2, 3))] for clip in kept if len(clip)]
        assert data.num_clips == len(kept)
        assert data.clip_frames().tolist() == [len(clip) for clip in kept]
        expected = np.concatenate([clip[:, body] for clip in kept for body in range(clip.shape[1])])
        np.testing.assert_allclose(data.coords.numpy(), expected, rtol=1e-6)


class TestFlipAndFitBox:
    def test_flip(self) -> None:
        data = pack(line(3))
        assert torch.equal(preprocess(data, ["flip"]).coords, data.coords * torch.tensor([1.0, -1, 1]))
        assert torch.equal(preprocess(data, [Flip("xz")]).coords, data.coords * torch.tensor([-1.0, 1, -1]))
        flat = pack(line(3)[..., :2])
        assert torch.equal(preprocess(flat, ["flip:axes=y"]).coords, flat.coords * torch.tensor([1.0, -1]))
        with pytest.raises(ValueError, match="names z, but the data has 2 channels"):
            preprocess(flat, ["flip:axes=xz"])
        for axes in ("", "w", "xx"):
            with pytest.raises(ValueError, match="axes of step 'flip' is"):
                Flip(axes)

    def test_fit_box(self) -> None:
        rng = np.random.default_rng(0)
        clip = rng.normal(size=(5, 2, 2, 3)) + 4
        clip[1, 0] = 0
        seen = np.ones((5, 2, 2), dtype=bool)
        seen[2, 1, 1] = False
        flat = line(3)
        flat[..., 2] = 2.0
        data = pack(clip, flat, valid=[seen, np.ones((3, 1, 2), dtype=bool)])
        result = preprocess(data, ["fit_box"])
        used = np.concatenate([clip[seen & clip.any(axis=(2, 3))[..., None]]])
        low, high = used.min(0), used.max(0)
        expected = (clip - low) / (high - low) * 2 - 1
        expected[1, 0], expected[2, 1, 1] = 0, 0
        np.testing.assert_allclose(result.coords[:5].numpy(), expected[:, 0], atol=1e-5)
        np.testing.assert_allclose(result.coords[5:10].numpy(), expected[:, 1], atol=1e-5)
        assert result.coords[10:, :, 2].tolist() == [[0, 0]] * 3
        assert result.coords[10:, :, 0].amax() == 1
        own = preprocess(data, [FitBox(per="body")])
        body = clip[[0, 2, 3, 4], 0]
        expected = (body - body.min((0, 1))) / (body.max((0, 1)) - body.min((0, 1))) * 2 - 1
        np.testing.assert_allclose(own.coords[[0, 2, 3, 4]].numpy(), expected, atol=1e-5)
        with pytest.raises(ValueError, match="unknown per of step 'fit_box'"):
            FitBox("person")


def published_translation(clip: np.ndarray) -> np.ndarray:
    """CTR-GCN's and MAMP's preparation of a clip ``(T, M, 25, 3)``, frame by frame, in the order of the scripts."""
    frames = [frame for frame in clip if any(body.any() for body in frame)]
    origin = None
    for frame in frames:
        if frame[0].any():
            origin = frame[0][1].copy()
            break
    assert origin is not None
    moved = []
    for frame in frames:
        bodies = []
        for body in frame:
            bodies.append([point - origin for point in body] if body.any() else [point * 0 for point in body])
        moved.append(bodies)
    return np.array(moved)


def published_ucla(value: np.ndarray) -> np.ndarray:
    """CTR-GCN's loader of NW-UCLA on ``(T, 20, 3)``, without turns."""
    value = value - value[0, 1, :]
    flat = np.reshape(value, (-1, 3))
    flat = (flat - np.min(flat, axis=0)) / (np.max(flat, axis=0) - np.min(flat, axis=0))
    return np.reshape(flat * 2 - 1, (-1, 20, 3))


class TestPresets:
    @pytest.fixture
    def clips(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        clips = [rng.normal(size=(frames, 2, 25, 3)) + 3 for frames in (6, 4, 5)]
        clips[0][:, 1] = 0
        clips[1][[0, 2], 0] = 0
        clips[1][2, 1] = 0
        clips[2][3:, 1] = 0
        return clips

    @pytest.mark.parametrize("name", ["mamp", "ctr-gcn"])
    def test_recipes_of_ntu(self, clips: list[np.ndarray], name: str) -> None:
        data = preprocess(pack(*clips, layout="ntu25"), preset_steps(name))
        golden = [published_translation(clip) for clip in clips]
        bodies = [golden[0][:, 0], *golden[1].swapaxes(0, 1), *golden[2].swapaxes(0, 1)]
        assert data.offsets.diff().tolist() == [6, 3, 3, 5, 5]
        np.testing.assert_allclose(data.coords.numpy(), np.concatenate(bodies), atol=1e-5)
        assert [step["name"] for step in data.steps] == ["close_gaps", "center"]

    def test_golden_numbers(self) -> None:
        """A body whose joint i stands at (i, 2i, -i) + frame; its joint 1 in the first frame goes to the origin."""
        places = np.arange(25)[:, None] * [1.0, 2.0, -1.0]
        clip = np.stack([places + 1, places + 2])[:, None]
        data = preprocess(pack(clip, layout="ntu25"), preset_steps("mamp"))
        assert data.coords[0, 1].tolist() == [0, 0, 0]
        assert data.coords[0, 3].tolist() == [2, 4, -2]
        assert data.coords[1, 24].tolist() == [24, 47, -22]

    def test_recipe_of_nw_ucla(self) -> None:
        rng = np.random.default_rng(0)
        clips = [rng.normal(size=(frames, 1, 20, 3)) + 2 for frames in (7, 3)]
        data = preprocess(pack(*clips, layout="kinect20"), preset_steps("ctr-gcn-ucla"))
        golden = np.concatenate([published_ucla(clip[:, 0]) for clip in clips])
        assert data.layout.index(data.steps[0]["joint"]) == 1
        np.testing.assert_allclose(data.coords.numpy(), golden, atol=1e-5)

    def test_raw_and_none_change_nothing(self, clips: list[np.ndarray]) -> None:
        data = pack(*clips, layout="ntu25")
        assert preprocess(data, preset_steps("raw")) is data
        assert preset_steps(None) == ()

    def test_names(self) -> None:
        assert {"mamp", "ctr-gcn", "raw"} <= set(PRESETS)
        for steps in PRESETS.values():
            parse_steps(steps)
        with pytest.raises(ValueError, match=r"unknown preset 'mump'.*did you mean 'mamp'"):
            preset_steps("mump")

    def test_another_layout_is_refused(self) -> None:
        data = pack(np.ones((2, 1, 17, 2)), layout="coco17")
        with pytest.raises(ValueError, match="unknown joint of layout 'coco17' 'middle_of_spine'"):
            preprocess(data, preset_steps("mamp"))
