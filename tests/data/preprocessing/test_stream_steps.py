from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons, apply_missing, preprocess
from fastamr.data.preprocessing.streams import stream_of
from fastamr.skeleton import SkeletonLayout

# A chain with a branch: b and c hang on a, d on c; the root stands in the middle of the list.
TREE = SkeletonLayout("tree", ("b", "a", "c", "d"), (1, -1, 1, 2))


def pack(*bodies: object, valid: np.ndarray | None = None) -> PackedSkeletons:
    clip = np.stack([np.asarray(body, dtype=float) for body in bodies], axis=1)
    return PackedSkeletons.from_clips([clip], layout=TREE, valid=None if valid is None else [valid])


def test_bones_lead_from_the_parent_to_the_joint() -> None:
    frame = [[1, 2, 3], [10, 20, 30], [5, 5, 5], [6, 7, 9]]
    bones = preprocess(pack([frame]), ["bone"])
    assert bones.coords[0].tolist() == [[-9, -18, -27], [0, 0, 0], [-5, -15, -25], [1, 2, 4]]
    assert bones.steps == ({"name": "bone"},)
    assert apply_missing(bones, ["bone"]) is bones


def test_a_bone_is_seen_where_both_ends_are() -> None:
    valid = np.ones((2, 1, 4), dtype=bool)
    valid[1, 0, 2] = False  # c: its own bone and that of d
    bones = preprocess(pack(np.ones((2, 4, 3)) * np.arange(1, 5)[:, None], valid=valid), ["bone"])
    assert bones.valid is not None
    assert bones.valid.tolist() == [[True] * 4, [True, True, False, False]]
    assert bones.coords[1].tolist() == [[-1, -1, -1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert bones.coords[0, 3].tolist() == [1, 1, 1]


def test_motion_stays_within_a_body_and_ends_with_zero() -> None:
    path = np.array([1.0, 2.0, 4.0, 8.0])
    first = path[:, None, None] * np.ones((4, 4, 3))
    motion = preprocess(pack(first, -2 * first), ["motion"]).coords[:, 0, 0]
    assert motion.tolist() == [1, 2, 4, 0, -2, -4, -8, 0]
    motion = preprocess(pack(first, -2 * first), ["motion:stride=2"]).coords[:, 3, 2]
    assert motion.tolist() == [3, 6, 0, 0, -6, -12, 0, 0]


def test_motion_next_to_absent_frames_and_unseen_joints() -> None:
    body = np.arange(1, 6)[:, None, None] * np.ones((5, 4, 3))
    body[2] = 0
    valid = np.ones((5, 1, 4), dtype=bool)
    valid[4, 0, 0] = False
    data = preprocess(pack(body, valid=valid), ["motion"])
    assert data.coords[:, 1, 0].tolist() == [1, 0, 0, 1, 0]
    assert data.coords[3].tolist() == [[0] * 3] + [[1] * 3] * 3
    assert data.valid is not None
    assert data.valid[:, 0].tolist() == [True, True, True, False, False]
    assert data.valid[:, 1:].all()


def test_motion_across_blocks_and_of_half_precision() -> None:
    body = np.zeros((9000, 4, 3))
    body[:, :, 0] = (np.arange(9000) % 100 + 1)[:, None] / 100
    data = pack(body)
    motion = preprocess(data.half(), ["motion"]).coords[:, 2, 0]
    expected = np.append(np.diff(body[:, 2, 0].astype(np.float16).astype(np.float32)), 0)
    np.testing.assert_array_equal(motion.numpy(), expected)


def test_both_streams_in_either_order() -> None:
    body = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    one, other = (preprocess(pack(body), steps).coords for steps in (["bone", "motion"], ["motion", "bone"]))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("stride", [0, -1, 1.5, "two"])
def test_bad_strides(stride: object) -> None:
    with pytest.raises(ValueError, match="stride of step 'motion' is"):
        preprocess(pack(np.ones((2, 4, 3))), [{"name": "motion", "stride": stride}])


def test_names_of_streams() -> None:
    assert stream_of([]) == stream_of(["center"]) == "joint"
    assert stream_of(["center", "bone"]) == "bone"
    assert stream_of(["center", {"name": "motion", "stride": 2}]) == "motion"
    assert stream_of(["motion:stride=2", "bone"]) == "bone motion"


class TestFrameLabels:
    """The class of each frame follows its row through everything that moves rows."""

    def make(self, **more: object) -> PackedSkeletons:
        body = np.arange(1, 7)[:, None, None, None] * np.ones((6, 2, 4, 3))
        body[:, 1] *= -1
        body[2:4] = 0
        clips = [body, body[:3, :1]]
        labels = [[0, 0, -1, -1, 1, 1], [-2, 1, 1]]
        fields = {"label_names": ["x", "y"], "fps": 10.0} | more
        return PackedSkeletons.from_clips(clips, layout=TREE, frame_labels=labels, **fields)  # type: ignore[arg-type]

    def test_every_body_has_the_labels_of_its_frames(self) -> None:
        data = self.make()
        assert data.frame_labels is not None
        assert data.frame_labels.dtype == torch.int16
        assert data.frame_labels.tolist() == [0, 0, -1, -1, 1, 1] * 2 + [-2, 1, 1]
        assert data.select([1]).frame_labels.tolist() == [-2, 1, 1]  # type: ignore[union-attr]
        assert data.summary()["action_frames"] == 10
        assert "action_frames" not in dataclasses.replace(data, frame_labels=None).summary()

    def test_they_come_back_from_a_file_and_count_in_the_fingerprint(self, tmp_path) -> None:
        data = self.make()
        data.save(tmp_path / "x.safetensors")
        loaded = PackedSkeletons.load(tmp_path / "x.safetensors")
        assert loaded.frame_labels is not None
        assert torch.equal(loaded.frame_labels, data.frame_labels)
        assert loaded.fingerprint() == data.fingerprint()
        assert dataclasses.replace(data, frame_labels=None).fingerprint() != data.fingerprint()

    def test_steps_that_drop_or_make_frames(self) -> None:
        kept = preprocess(self.make(), ["close_gaps"])
        assert kept.frame_labels.tolist() == [0, 0, 1, 1] * 2 + [-2, 1]  # type: ignore[union-attr]
        fewer = preprocess(self.make(), ["resample:fps=5"])
        assert fewer.frame_labels.tolist() == [0, -1, 1] * 2 + [-2, 1]  # type: ignore[union-attr]

    def test_joining(self) -> None:
        from fastamr.data import concatenate

        trimmed = PackedSkeletons.from_clips(
            [np.ones((2, 1, 4, 3))] * 2, layout=TREE, labels=[0, -1], label_names=["y"]
        )
        joined = concatenate([self.make(), trimmed])
        assert joined.label_names == ("x", "y")
        assert joined.frame_labels.tolist()[-7:] == [-2, 1, 1, 1, 1, -2, -2]  # type: ignore[union-attr]
        joined = concatenate([trimmed, self.make()])
        assert joined.frame_labels.tolist()[4:10] == [1, 1, -1, -1, 0, 0]  # type: ignore[union-attr]
        assert concatenate([trimmed, trimmed]).frame_labels is None

    def test_what_does_not_fit_is_refused(self, tmp_path) -> None:
        data = self.make()
        with pytest.raises(ValueError, match=r"frame_labels is torch.int16 of shape \(3,\), expected int16"):
            dataclasses.replace(data, frame_labels=torch.zeros(3, dtype=torch.int16))
        labels = data.frame_labels.clone()
        labels[13] = 2
        with pytest.raises(ValueError, match=r"clip 1 \('clip1'\), frame 1: frame_labels holds 2, expected"):
            dataclasses.replace(data, frame_labels=labels).save(tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match=r"frame_labels of clip 0 is int64 of shape \(2,\)"):
            PackedSkeletons.from_clips([np.ones((3, 1, 4, 3))], layout=TREE, frame_labels=[[0, 1]])
        with pytest.raises(ValueError, match="frame_labels has 2 entries for 1 clips"):
            PackedSkeletons.from_clips([np.ones((3, 1, 4, 3))], layout=TREE, frame_labels=[[0] * 3] * 2)
