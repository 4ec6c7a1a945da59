"""Single arrays in ``.npy``, ``.npz`` and ``.mat`` files: axes, skeletons, confidence, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from fastamr.data import PackedSkeletons, read
from fastamr.data.readers.array_files.axes import to_clips
from fastamr.skeleton import get_layout

from ..reading import clip_of, one_line

RNG = np.random.default_rng(0)


def told(path: Path, **options: Any) -> tuple[PackedSkeletons, str]:
    notes: list[str] = []
    return read(path, say=notes.append, **options), "\n".join(notes)


class TestAxes:
    @pytest.mark.parametrize(
        ("order", "shape"),
        [
            ("TVC", (30, 22, 3)),
            ("VTC", (22, 30, 3)),
            ("VCT", (20, 3, 50)),
            ("TCV", (50, 3, 20)),
            ("CTV", (3, 50, 20)),
            ("TMVC", (30, 2, 25, 3)),
            ("MTVC", (2, 30, 25, 3)),
            ("CTVM", (3, 30, 25, 1)),
        ],
    )
    def test_are_told_by_their_sizes(self, order: str, shape: tuple[int, ...]) -> None:
        array = RNG.normal(size=shape)
        (clip,), notes = to_clips(array, "file", {17, 20, 22, 25})
        full = array if "M" in order else array[None]
        full_order = order if "M" in order else "M" + order
        assert np.array_equal(clip, full.transpose([full_order.index(axis) for axis in "TMVC"]))
        assert len(notes) == (order not in ("TVC", "TMVC"))

    @pytest.mark.parametrize("shape", [(8, 3, 30, 25, 2), (8, 30, 2, 25, 3), (8, 40, 25, 3)])
    def test_batches_lose_their_padding(self, shape: tuple[int, ...]) -> None:
        array = np.zeros(shape)
        frames = 1 if shape[1] != 3 else 2
        array[(slice(None),) * frames + (slice(0, 7),)] = RNG.normal(
            size=(1,) * frames + (1,) * (len(shape) - frames)
        )
        clips, _ = to_clips(array, "file", {25})
        assert [len(clip) for clip in clips] == [7] * 8

    @pytest.mark.parametrize(
        ("shape", "found"), [((9, 60), (9, 1, 20, 3)), ((9, 132), (9, 1, 33, 4)), ((33, 4), (1, 1, 33, 4))]
    )
    def test_rows_and_single_frames(self, shape: tuple[int, ...], found: tuple[int, ...]) -> None:
        array = RNG.normal(size=shape)
        (clip,), notes = to_clips(array, "file", {20, 33})
        assert clip.shape == found
        assert np.array_equal(clip.ravel(), array.ravel())
        assert len(notes) == 1

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            (
                (20, 3, 20),
                r"which may be .*\(joints, coordinates, frames\) or \(frames, coordinates, joints\)",
            ),
            ((8, 2, 30, 25, 3), "which may be .*clips, coordinates, frames, joints, bodies.* or"),
            ((5,), r"expected \(frames, joints, coordinates\)"),
            ((50, 60, 70), "expected .*; --layout names a skeleton of another number of joints"),
            ((9, 7), "frames of 7 values, which is no known skeleton"),
            ((33, 7), "frames of 7 values, which is no known skeleton"),
            (
                (9, 66),
                "22 joints in 3 coordinates or 33 joints in 2 coordinates; name the skeleton with --layout",
            ),
        ],
    )
    def test_are_never_guessed(self, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            to_clips(np.ones(shape), "file", {20, 22, 25, 33})


class TestNpy:
    @pytest.mark.parametrize("name", ["000001.npy", "M012345.npy", "new_joints/walk.npy"])
    def test_humanml3d(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        joints = RNG.normal(size=(40, 22, 3)).astype(np.float32)
        np.save(path, joints)
        data, notes = told(path)
        assert (data.layout.name, data.fps.tolist(), data.names) == ("smpl22", [20], [path.stem])
        assert "taken as HumanML3D's: 20 frames a second" in notes
        np.testing.assert_array_equal(data.coords.numpy(), joints)

    def test_joints_of_another_name_have_no_rate(self, tmp_path: Path) -> None:
        np.save(tmp_path / "walk.npy", RNG.normal(size=(40, 22, 3)))
        data, notes = told(tmp_path / "walk.npy", fps=25)
        assert (data.layout.name, data.fps.tolist()) == ("smpl22", [25])
        assert "22 joints without names are taken as layout smpl22" in notes

    @pytest.mark.parametrize(
        ("joints", "layout"), [(24, "smpl24"), (33, "mediapipe33"), (52, "smpl22"), (55, "smpl22")]
    )
    def test_other_numbers_of_joints(self, tmp_path: Path, joints: int, layout: str) -> None:
        array = RNG.normal(size=(6, joints, 3)).astype(np.float32)
        np.save(tmp_path / "walk.npy", array)
        data, notes = told(tmp_path / "walk.npy")
        assert data.layout.name == layout
        assert f"{joints} joints" in notes
        np.testing.assert_array_equal(data.coords.numpy(), array[:, : data.layout.num_joints])

    @pytest.mark.parametrize("size", [4, 5])
    def test_mediapipe_with_visibility(self, tmp_path: Path, size: int) -> None:
        array = RNG.normal(size=(6, 33, size)).astype(np.float32)
        array[..., 3:] = RNG.uniform(0.01, 1, size=(6, 33, size - 3))
        array[2, 5, 3] = 0
        np.save(tmp_path / "pose.npy", array)
        data, notes = told(tmp_path / "pose.npy", min_confidence=0.3)
        assert (data.layout.name, data.coords.shape[2]) == ("mediapipe33", 3)
        assert "the fourth channel is taken as the joints' confidence" in notes
        assert data.valid is not None
        assert np.array_equal(data.valid.numpy(), array[..., 3] >= 0.3)

    def test_pixels_with_a_score(self, tmp_path: Path) -> None:
        array = np.concatenate([RNG.uniform(0, 640, (6, 17, 2)), RNG.uniform(0.1, 1, (6, 17, 1))], axis=-1)
        np.save(tmp_path / "pose.npy", array)
        data, notes = told(tmp_path / "pose.npy", layout="coco17")
        assert data.coords.shape[2] == 2
        assert "within 0 and 1 beside pixels" in notes

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones((30, 263)), "263 features a frame of HumanML3D .* give the files of new_joints"),
            (
                np.ones((30, 17, 3)),
                "17 joints without names, which several layouts have; choose one: --layout coco17",
            ),
            (
                np.array([{"a": 1}], dtype=object),
                "holds an array of objects, which could run code and is not read",
            ),
            (np.array(["a"]), "of <U1, expected real numbers"),
            (np.ones((0, 22, 3)), "no frame with a body; the data set is empty"),
            (np.full((3, 22, 3), np.inf), "frame 0, body 0, joint 0: .* not finite"),
        ],
    )
    def test_what_is_refused(self, tmp_path: Path, array: np.ndarray, message: str) -> None:
        np.save(tmp_path / "pose.npy", array)
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path / "pose.npy")
        one_line(error, "pose.npy")

    @pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04."])
    def test_damage(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "pose.npy").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"pose.npy(, array 'pose' is damaged| is (empty|no .npy file, or is truncated))"
        ):
            read(tmp_path / "pose.npy")


class TestNpz:
    def test_key_points_with_scores_names_and_rate(self, tmp_path: Path) -> None:
        points = RNG.uniform(0, 640, (6, 2, 17, 2))
        scores = RNG.uniform(0.1, 1, (6, 2, 17))
        names = np.array(get_layout("coco17").joints)[::-1]
        np.savez(
            tmp_path / "a.npz",
            keypoints=points,
            scores=scores,
            keypoint_names=names,
            fps=25,
            bbox=np.ones((6, 4)),
        )
        data, notes = told(tmp_path / "a.npz", min_confidence=0.5)
        assert (data.layout.name, data.num_bodies, data.fps.tolist(), data.names) == (
            "coco17",
            2,
            [25],
            ["a"],
        )
        assert data.valid is not None
        assert np.array_equal(data.valid[:6].numpy(), scores[:, 0, ::-1] >= 0.5)
        expected = points[:, 0, ::-1].astype(np.float32) * data.valid[:6, :, None].numpy()
        np.testing.assert_array_equal(clip_of(data, "a")[0], expected)
        assert "coordinates are read from 'keypoints'" in notes
        assert "arrays that are not read: bbox (6, 4)" in notes

    def test_a_padded_batch_with_labels(self, tmp_path: Path) -> None:
        batch = np.zeros((9, 3, 8, 25, 2))
        batch[:, :, :5] = RNG.normal(size=(9, 3, 5, 25, 2))
        np.savez(tmp_path / "a.npz", data=batch, labels=np.arange(9)[:, None] % 3, subject=np.arange(9))
        data = read(tmp_path / "a.npz", layout="ntu25")
        assert data.labels.tolist() == [0, 1, 2] * 3
        assert data.columns["subject"].tolist() == list(range(9))
        assert data.offsets.diff().unique().tolist() == [5]

    def test_a_clip_in_each_array(self, tmp_path: Path) -> None:
        clips = {f"walk_{place}": RNG.uniform(5, 500, (4, 17, 2)).astype(np.float32) for place in (10, 9)}
        np.savez(tmp_path / "a.npz", **clips)
        data, notes = told(tmp_path / "a.npz", layout="coco17")
        assert data.names == ["walk_9", "walk_10"]
        np.testing.assert_array_equal(data.coords[4:].numpy(), clips["walk_10"])
        assert "each of the 2 arrays is taken as a clip of its name" in notes
        np.savez(tmp_path / "a.npz", *clips.values(), RNG.uniform(5, 500, (7, 17, 2)))
        data, _ = told(tmp_path / "a.npz", layout="coco17")
        assert (data.names, data.clip_frames().tolist()) == (["arr_0", "arr_1", "arr_2"], [4, 4, 7])
        with pytest.raises(ValueError, match=r"arr_0: 17 joints without names, which several layouts have"):
            told(tmp_path / "a.npz")
        np.savez(tmp_path / "a.npz", first=np.ones((4, 17, 2)), second=np.ones((5, 17, 2)), label=np.zeros(2))
        with pytest.raises(ValueError, match="holds the arrays first"):
            told(tmp_path / "a.npz", layout="coco17")

    def test_rows_of_a_batch(self, tmp_path: Path) -> None:
        batch = RNG.normal(size=(8, 10, 75)).astype(np.float32)
        batch[3, 6:] = 0
        np.savez(tmp_path / "a.npz", data=batch, labels=np.arange(8) % 2)
        data, notes = told(tmp_path / "a.npz", layout="ntu25")
        assert (data.num_clips, data.clip_frames().tolist()[3]) == (8, 6)
        np.testing.assert_array_equal(data.coords[:10].numpy(), batch[0].reshape(10, 25, 3))
        assert "shape (8, 10, 75) is read as (clips, frames, values)" in notes

    def test_smpl_with_joints_and_without(self, tmp_path: Path) -> None:
        amass = {"poses": RNG.normal(size=(7, 156)), "trans": np.ones((7, 3)), "betas": np.ones(16)}
        amass |= {
            "mocap_framerate": np.array(120.0),
            "gender": np.array("female"),
            "marker_data": np.ones((7, 41, 3)),
        }
        path = tmp_path / "walk_poses.npz"
        np.savez(path, **amass)
        with pytest.raises(
            ValueError, match=r"rotations of a body model.*package smplx.*save them as joints"
        ):
            read(path)
        np.savez(path, **amass | {"poses": RNG.normal(size=(7, 52, 3))})
        with pytest.raises(ValueError, match="rotations of a body model"):
            read(path)
        joints = RNG.normal(size=(7, 52, 3)).astype(np.float32)
        np.savez(path, **amass, Jtr=joints)
        data, notes = told(path)
        assert (data.layout.name, data.fps.tolist()) == ("smpl22", [120])
        assert "the first 22 are layout smpl22, the others are left out" in notes
        np.testing.assert_array_equal(data.coords.numpy(), joints[:, :22])

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"weights": np.ones(3)}, r"holds the arrays weights \(3,\); expected x, offsets or"),
            ({"positions_3d": np.array([{}], dtype=object)}, "holds the arrays positions_3d"),
            ({"a": np.ones((5, 17, 2)), "b": np.ones((5, 17, 2))}, r"holds the arrays a \(5, 17, 2\), b"),
            ({"keypoints": np.ones((5, 22, 3)), "scores": np.ones((5, 9))}, None),
            (
                {"keypoints": np.ones((5, 22, 3)), "label": np.array(1.5)},
                "label, row 0: 1.5 is no class index",
            ),
        ],
    )
    def test_what_is_refused_or_named(
        self, tmp_path: Path, arrays: dict[str, Any], message: str | None
    ) -> None:
        np.savez(tmp_path / "a.npz", **arrays)
        if message is None:
            assert "arrays that are not read: scores (5, 9)" in told(tmp_path / "a.npz")[1]
            return
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path / "a.npz")
        one_line(error, "a.npz")


class TestMat:
    @pytest.mark.parametrize("frames", [1, 20, 50])
    def test_utd_mhad(self, tmp_path: Path, frames: int) -> None:
        path = tmp_path / "a27_s3_t2_skeleton.mat"
        skeleton = RNG.normal(size=(20, 3, frames))
        scipy.io.savemat(path, {"d_skel": skeleton})
        data, notes = told(path)
        assert (data.layout.name, data.fps.tolist()) == ("kinect20", [30])
        assert (data.labels.tolist(), data.label_names[26]) == ([26], "squat")
        assert {name: column.tolist() for name, column in data.columns.items()} == {
            "subject": [3],
            "rep": [2],
        }
        head, left_hip = data.layout.joints.index("head"), data.layout.joints.index("hip_left")
        np.testing.assert_allclose(data.coords[:, head].numpy(), skeleton[0].T, rtol=1e-6)
        np.testing.assert_allclose(data.coords[:, left_hip].numpy(), skeleton[12].T, rtol=1e-6)
        assert "is read as UTD-MHAD" in notes

    def test_penn_action(self, tmp_path: Path) -> None:
        x, y = RNG.uniform(1, 300, (2, 6, 13))
        visibility = RNG.random((6, 13)) > 0.3
        scipy.io.savemat(
            tmp_path / "0007.mat",
            {
                "action": "jump_rope", "pose": "front", "x": x, "y": y, "visibility": visibility.astype(np.uint8),
                "train": -1, "bbox": np.ones((6, 4)), "dimensions": np.array([270, 480, 6]), "nframes": 6,
            },
        )  # fmt: skip
        data, notes = told(tmp_path / "0007.mat")
        assert (data.layout.name, data.names, data.label_names) == ("penn13", ["0007"], ("jump_rope",))
        assert data.labels.tolist() == [0]
        assert data.splits["official"].test.tolist() == [True]
        assert data.columns["image_width"].tolist() == [480]
        assert data.valid is not None
        assert np.array_equal(data.valid.numpy(), visibility)
        np.testing.assert_allclose(data.coords[..., 1].numpy(), y * visibility, rtol=1e-6)
        assert "arrays that are not read: pose (1,), bbox (6, 4)" in notes

    def test_jhmdb(self, tmp_path: Path) -> None:
        path = tmp_path / "joint_positions" / "brush_hair" / "April_09" / "joint_positions.mat"
        path.parent.mkdir(parents=True)
        points = RNG.uniform(1, 300, (2, 15, 40))
        scipy.io.savemat(
            path, {"pos_img": points, "pos_world": points / 320, "scale": np.ones((1, 40)), "viewpoint": "E"}
        )
        data, notes = told(path)
        assert (data.layout.name, data.names, data.label_names) == ("jhmdb15", ["April_09"], ("brush_hair",))
        np.testing.assert_allclose(data.coords[7].numpy(), points[:, :, 7].T, rtol=1e-6)
        assert "arrays that are not read: pos_world (2, 15, 40), scale (1, 40), viewpoint (1,)" in notes
        # Elsewhere the folders above name no class.
        (tmp_path / "joint_positions.mat").write_bytes(path.read_bytes())
        assert told(tmp_path / "joint_positions.mat")[0].label_names == ()

    def test_any_variable_and_its_companions(self, tmp_path: Path) -> None:
        skeleton = RNG.normal(size=(40, 20, 3))
        variables = {
            "skeleton": skeleton,
            "label": 3,
            "fps": 15,
            "meta": {"subject": 1},
            "cells": np.array([[1, "a"]], object),
        }
        scipy.io.savemat(tmp_path / "one.mat", variables)
        data, notes = told(tmp_path / "one.mat")
        assert (data.layout.name, data.labels.tolist(), data.fps.tolist()) == ("kinect20", [3], [15])
        assert "variables that are no plain arrays and are not read: meta (struct), cells (cell)" in notes

    def test_what_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "one.mat"
        scipy.io.savemat(path, {"meta": {"skeleton": np.ones((4, 20, 3))}, "n": 3})
        with pytest.raises(
            ValueError, match=r"holds n \(1, 1\), meta \(struct\); expected a numeric variable"
        ) as error:
            read(path)
        one_line(error, "one.mat")
        path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: PCWIN64".ljust(124) + b"\x00\x02IM" + bytes(400))
        with pytest.raises(ValueError, match=r"version 7.3 \(HDF5\).*save\('one.mat', '-v7'\)"):
            read(path)
        for content in (b"", b"abc", bytes(200)):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"one.mat is no .mat file, or is truncated"):
                read(path)
        scipy.io.savemat(path, {"skeleton": np.ones((40, 20, 3))})
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(ValueError, match=r"one.mat is no .mat file, or is truncated"):
            read(path)


class TestDoubts:
    """A third channel that may be a score and is read as z is never taken without a word."""

    @pytest.mark.parametrize(
        ("third", "within"),
        [
            (RNG.uniform(20, 100, (9, 17)).round(1), "within"),
            (RNG.integers(0, 256, (9, 17)), "within"),
            (np.tile([2, 2, 1, 2, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1], (9, 1)), "within 0 and 2"),
        ],
        ids=("percent", "bytes", "flags"),
    )
    def test_are_said_beside_pixels(self, tmp_path: Path, third: np.ndarray, within: str) -> None:
        pixels = RNG.uniform(100, 900, (9, 17, 2))
        np.save(tmp_path / "a.npy", np.concatenate([pixels, third[..., None]], -1))
        data, notes = told(tmp_path / "a.npy", layout="coco17")
        assert data.coords.shape[-1] == 3
        assert f"the third channel lies {within}" in notes
        assert "give a confidence as an array of its own" in notes

    def test_are_none_of_a_skeleton_in_space(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", RNG.normal(size=(9, 17, 3)))
        assert "confidence" not in told(tmp_path / "a.npy", layout="h36m17")[1]
