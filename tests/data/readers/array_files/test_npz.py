from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastamr.data import PackedSkeletons, from_batch
from fastamr.data.readers import Source
from fastamr.data.readers.array_files import npz_packed
from fastamr.data.readers.common import npz
from fastamr.data.readers.common.arrays import trim_padding
from fastamr.skeleton import get_layout


def read_packed(path: Path) -> PackedSkeletons:
    return npz_packed.read(Source(path)).data


def packed_arrays(**changes: Any) -> dict[str, Any]:
    """Three sequences of 4, 1 and 3 frames with one body of the 20 Kinect joints, in millimetres as int16."""
    layout = get_layout("kinect20")
    arrays = {
        "x": np.random.default_rng(0).integers(-2000, 2000, (8, 1, 20, 3)).astype(np.int16),
        "x_scale": np.float32(0.001),
        "offsets": np.array([0, 4, 5, 8]),
        "label": np.array([2, 0, 1], dtype=np.int16),
        "label_names": np.array(["run", "sit", "stand"]),
        "joint_names": np.array(layout.joints),
        "parents": np.array(layout.parents, dtype=np.int16),
        "fps": np.float32(30),
        "name": np.array(["p", "q", "r"]),
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


class TestPackedLayout:
    def test_all_fields(self, path: Path) -> None:
        arrays = packed_arrays(
            view=np.array([3, 1, 2]), subject=np.array(["b", "a", "b"]), style=np.array([1, 0, 1])
        )
        np.savez_compressed(path, **arrays, style_names=np.array(["old", "young"]), other=np.zeros((2, 2)))
        data = read_packed(path)
        assert data.layout is get_layout("kinect20")
        assert data.offsets.tolist() == [0, 4, 5, 8]
        np.testing.assert_allclose(data.coords.numpy(), arrays["x"][:, 0] / 1000.0, atol=1e-6)
        assert data.labels.tolist() == [2, 0, 1]
        assert data.label_names == ("run", "sit", "stand")
        assert data.fps.tolist() == [30, 30, 30]
        assert data.names == ["p", "q", "r"]
        assert {name: column.tolist() for name, column in data.columns.items()} == {
            "style": [1, 0, 1],
            "subject": [1, 0, 1],
            "view": [3, 1, 2],
        }
        assert data.column_names == {"style": ("old", "young"), "subject": ("a", "b")}
        assert data.splits == {}
        assert data.summary()["single_frame_clips"] == 1

    def test_only_what_is_needed(self, path: Path) -> None:
        arrays = packed_arrays(label=None, label_names=None, fps=None, name=None, x_scale=None)
        arrays["joint_names"] = np.array([f"part {chr(97 + place)}" for place in range(20)])
        np.savez(path, **arrays)
        data = read_packed(path)
        assert data.layout.name == "motion"
        assert data.labels.tolist() == [-1, -1, -1]
        assert data.fps.isnan().all()
        assert data.coords.max() > 100

    def test_official_and_deduplicated_splits(self, path: Path) -> None:
        np.savez(
            path,
            **packed_arrays(
                is_train=np.array([True, True, False]),
                is_train_dedup=np.array([True, False, False]),
                split_name=np.array("official"),
            ),
        )
        data = read_packed(path)
        assert data.splits["official"].train.tolist() == [True, True, False]
        assert data.splits["official"].test.tolist() == [False, False, True]
        assert data.splits["dedup"].train.tolist() == [True, False, False]
        assert data.splits["dedup"].test.tolist() == [False, False, True]
        assert data.columns == {}

    def test_folds(self, path: Path) -> None:
        np.savez(path, **packed_arrays(fold=np.array([0, 2, 0]), is_train_repo=np.array([True, False, True])))
        data = read_packed(path)
        assert list(data.splits) == ["official", "fold0", "fold2"]
        assert data.splits["fold0"].test.tolist() == [True, False, True]
        assert data.splits["fold0"].train.tolist() == [False, True, False]

    def test_an_empty_sequence_is_dropped_and_listed(self, path: Path) -> None:
        np.savez(path, **packed_arrays(offsets=np.array([0, 4, 4, 8])))
        data = read_packed(path)
        assert data.dropped == {"q": "no frames"}
        assert data.labels.tolist() == [2, 1]

    def test_bad_coordinates_name_the_clip_and_the_frame(self, path: Path) -> None:
        x = np.ones((8, 1, 20, 3), dtype=np.float32)
        x[6, 0, 3, 1] = np.inf
        np.savez(path, **packed_arrays(x=x))
        with pytest.raises(ValueError, match=r"clip 2 \('r'\), frame 1, body 0, joint 3"):
            read_packed(path)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"offsets": np.array([0, 4, 5, 9])},
                "offsets goes from 0 to 9, expected to rise from 0 to the 8 frames",
            ),
            ({"offsets": np.array([0, 5, 4, 8])}, "offsets goes from 0 to 8, expected to rise"),
            ({"offsets": np.array([0])}, "the data set is empty"),
            ({"x": np.ones((8, 60))}, "x has shape"),
            ({"x": np.ones((8, 1, 20, 6))}, "6 values a joint, expected x, y or x, y, z"),
            (
                {"parents": np.zeros(20, dtype=int), "joint_names": np.array([f"j{n}" for n in range(20)])},
                "cycle",
            ),
            ({"parents": np.zeros(3, dtype=int)}, "parents has 3 entries for 20 joints"),
            ({"joint_names": np.array(["a", "b"])}, "joint_names has 2 entries for 20 joints"),
            ({"label": np.array([0, 5, 1])}, "holds class 5, but 3 classes are named"),
            ({"label": np.array([[0, 1], [1, 1], [1, 0]])}, "label, row 1: .* is not one-hot"),
            ({"label": np.array([0.5, 0, 1])}, "row 0: 0.5 is no class index"),
            (
                {"label": np.array(["sit", "sat", "run"])},
                "holds 'sat', which is not among the classes run, sit, stand",
            ),
            (
                {"label": np.array(["a", "b", "a"], dtype=object)},
                "array 'label': holds objects, .* dtype=str",
            ),
            ({"is_train": np.array([True, False])}, r"is_train has shape \(2,\), expected \(3,\)"),
            ({"exclude": np.array([True, False])}, r"exclude has shape \(2,\), expected \(3,\)"),
            ({"visible": np.ones((8, 1, 19))}, r"visible has shape \(8, 1, 19\), expected \(8, 1, 20\)"),
            (
                {"split_x": np.array(["a", "b", "a"])},
                "x holds 'a', 'b'; expected words such as train and test",
            ),
            ({"split_x": np.array([3, 4, 3])}, "x holds .*, expected True and False"),
            ({"offsets": np.array([0.0, 4.0, 8.0])}, "of float64, expected whole numbers"),
            (
                {"label": np.zeros(2, dtype=int)},
                r"label has shape \(2,\) of int64, expected .* indices or text",
            ),
            ({"x": np.array([None] * 8)}, "array 'x': Object arrays cannot be loaded"),
        ],
    )
    def test_bad_files(self, path: Path, changes: dict[str, Any], message: str) -> None:
        np.savez(path, **packed_arrays(**changes))
        with pytest.raises(ValueError, match=message):
            read_packed(path)

    @given(order=st.permutations(range(20)), sides=st.sampled_from(["{}", "{}_x"]))
    @settings(max_examples=15, deadline=None)
    def test_the_order_of_named_joints_changes_nothing(
        self, tmp_path_factory: pytest.TempPathFactory, order: list[int], sides: str
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "motion.npz"
        arrays = packed_arrays(visible=np.random.default_rng(1).random((8, 1, 20)) > 0.3)
        if sides != "{}":  # names of no built-in layout: kept in their own order
            arrays["joint_names"] = np.array([sides.format(name) for name in arrays["joint_names"]])
        back = np.argsort(order)
        np.savez(path, **arrays)
        expected = read_packed(path)
        moved = arrays | {
            "x": arrays["x"][:, :, order],
            "visible": arrays["visible"][:, :, order],
            "joint_names": arrays["joint_names"][order],
            "parents": np.array([-1 if p < 0 else back[p] for p in arrays["parents"][order]]),
        }
        np.savez(path, **moved)
        data = read_packed(path)
        if sides == "{}":
            assert data.layout is get_layout("kinect20")
        else:
            assert data.layout.name == "motion"
        columns = [data.layout.joints.index(name) for name in expected.layout.joints]
        assert torch.equal(data.coords[:, columns], expected.coords)
        assert data.valid is not None
        assert expected.valid is not None
        assert torch.equal(data.valid[:, columns], expected.valid)

    def test_a_known_skeleton_in_another_order_is_said(self, path: Path) -> None:
        arrays = packed_arrays()
        np.savez(path, **arrays)
        assert npz_packed.read(Source(path)).notes == []
        moved = arrays | {"joint_names": arrays["joint_names"][::-1], "x": arrays["x"][:, :, ::-1]}
        np.savez(path, **moved)
        (told, bones) = npz_packed.read(Source(path)).notes
        assert "joints matched by name to layout kinect20" in told
        assert "parents differ from the bones of layout kinect20" in bones

    @pytest.mark.parametrize(
        "name", ["visible", "confidence", "valid", "score", "Visibility", "keypoint_scores"]
    )
    @pytest.mark.parametrize("dtype", [bool, np.float32, np.int16])
    def test_visibility_becomes_validity(self, path: Path, name: str, dtype: type) -> None:
        seen = np.random.default_rng(1).random((8, 1, 20)) > 0.3
        np.savez(path, **packed_arrays(**{name: seen.astype(dtype)}))
        data = read_packed(path)
        assert data.valid is not None
        assert torch.equal(data.valid, torch.from_numpy(seen[:, 0]))
        assert (data.coords[~data.valid] == 0).all()

    def test_the_least_confidence_counts(self, path: Path) -> None:
        score = np.random.default_rng(1).random((8, 20)).astype(np.float32)
        hidden = np.ones((8, 1, 20, 1), dtype=bool)
        hidden[3] = False
        np.savez(path, **packed_arrays(confidence=score, visible=hidden))
        data = npz_packed.read(Source(path), min_confidence=0.4).data
        expected = torch.from_numpy(score >= 0.4)
        expected[3] = False
        assert data.valid is not None
        assert torch.equal(data.valid, expected)
        assert data.steps[0]["min_confidence"] == 0.4

    def test_nan_is_not_seen_and_said(self, path: Path) -> None:
        x = np.random.default_rng(0).normal(size=(8, 1, 20, 3))
        x[6, 0, 3, 1] = np.nan
        np.savez(path, **packed_arrays(x=x))
        reading = npz_packed.read(Source(path))
        assert reading.notes == ["1 joints are NaN: marked as not seen"]
        assert reading.data.valid is not None
        assert (~reading.data.valid).nonzero().tolist() == [[6, 3]]

    def test_a_score_beside_pixels_is_no_depth(self, path: Path) -> None:
        x = np.concatenate(
            [np.random.default_rng(0).uniform(0, 600, (8, 1, 20, 2)), np.full((8, 1, 20, 1), 0.7)], -1
        )
        x[2, 0, 5, 2] = 0
        np.savez(path, **packed_arrays(x=x, x_scale=np.float32(0.5)))
        reading = npz_packed.read(Source(path))
        assert "third channel" in reading.notes[0]
        assert reading.data.coords.shape[2] == 2
        np.testing.assert_allclose(reading.data.coords[0].numpy(), x[0, 0, :, :2] * 0.5, rtol=1e-6)
        assert reading.data.valid is not None
        assert (~reading.data.valid).nonzero().tolist() == [[2, 5]]

    def test_splits_of_every_form_and_excluded_clips(self, path: Path) -> None:
        np.savez(
            path,
            **packed_arrays(
                split_a=np.array([True, False, True]),
                split_b=np.array([1, 2, 0]),
                split_c=np.array(["Train", "val", "test"]),
                split3=np.array([0, 1, 1]),
                split_d=np.array([0, 1, 0]),
                split_d_names=np.array(["testing", "training"]),
                exclude=np.array([False, False, True]),
            ),
        )
        reading = npz_packed.read(Source(path))
        found = {
            name: (split.train.int().tolist(), split.test.int().tolist())
            for name, split in reading.data.splits.items()
        }
        assert found == {
            "a": ([1, 0, 0], [0, 1, 0]),
            "b": ([1, 0, 0], [0, 1, 0]),
            "c": ([1, 0, 0], [0, 0, 0]),
            "c_val": ([1, 0, 0], [0, 1, 0]),
            "split3": ([0, 1, 0], [1, 0, 0]),
            "d": ([0, 1, 0], [1, 0, 0]),
        }
        told = "\n".join(reading.notes)
        assert "split 'b': 1 = train, 2 = test, others neither" in told
        assert "1 clips that 'exclude' marks are in neither half of any split" in told
        assert list(reading.data.columns) == ["exclude"]

    def test_what_is_train_is_called(self, path: Path) -> None:
        mask = np.array([True, False, True])
        np.savez(path, **packed_arrays(is_train=mask, split_name=np.array("cross subject")))
        assert list(read_packed(path).splits) == ["cross subject"]
        np.savez(path, **packed_arrays(is_train=mask, is_test=np.array([False, True, False])))
        reading = npz_packed.read(Source(path))
        assert list(reading.data.splits) == ["is_train"]
        assert "does not say whose split it is" in reading.notes[-1]
        published = path.with_name("nw_ucla.npz")
        path.rename(published)
        assert list(read_packed(published).splits) == ["official"]

    def test_labels_as_a_column_as_rows_and_as_text(self, path: Path) -> None:
        for label in (np.array([[2], [0], [1]]), np.eye(3)[[2, 0, 1]], np.array(["stand", "run", "sit"])):
            np.savez(path, **packed_arrays(label=label))
            assert read_packed(path).labels.tolist() == [2, 0, 1]
        np.savez(path, **packed_arrays(label=np.array([b"walk", b"", b"climb"]), label_names=None))
        data = read_packed(path)
        assert (data.labels.tolist(), data.label_names) == ([1, -1, 0], ("climb", "walk"))

    def test_arrays_that_are_not_read_are_named(self, path: Path) -> None:
        np.savez(path, **packed_arrays(), other=np.zeros((2, 2)), meta=np.array([{"a": 1}], dtype=object))
        notes = npz_packed.read(Source(path)).notes
        assert notes == [
            "arrays of objects, which are never read: meta",
            "arrays that are not read: other (2, 2)",
        ]

    def test_without_names_the_tree_and_then_the_number_decides(self, path: Path) -> None:
        np.savez(path, **packed_arrays(joint_names=None))
        reading = npz_packed.read(Source(path))
        assert reading.data.layout is get_layout("kinect20")
        assert "told by their tree" in reading.notes[0]
        np.savez(path, **packed_arrays(joint_names=None, parents=np.arange(-1, 19)))
        assert read_packed(path).layout.name == "motion"
        numbered = np.array([f"joint_{place}" for place in range(20)])
        np.savez(path, **packed_arrays(joint_names=numbered, parents=np.arange(-1, 19)))
        assert read_packed(path).layout.name == "motion"
        np.savez(path, **packed_arrays(joint_names=None, parents=None))
        reading = npz_packed.read(Source(path))
        assert (reading.data.layout.name, len(reading.notes)) == ("kinect20", 1)
        np.savez(path, **packed_arrays(joint_names=None, parents=None, x=np.ones((8, 17, 2))))
        with pytest.raises(
            ValueError, match=r"17 joints without names, which several layouts have.*--layout coco17"
        ):
            read_packed(path)
        assert npz_packed.read(Source(path), layout="coco17").data.layout.name == "coco17"

    @pytest.mark.parametrize(
        ("folder", "clips", "bodies", "frames", "splits"),
        [
            ("nw_ucla", 1484, 1484, 58534, {"official": (1020, 464), "dedup": (925, 464)}),
            ("hdm05_11class", 287, 287, 17878, {"official": (188, 99)}),
            ("sbu_interaction", 282, 564, 13644, {"fold0": (227, 55)}),
            ("penn_action", 2325, 2325, 163773, {"official": (1257, 1068)}),
            ("jhmdb_2d_ddnet", 609, 609, 21126, {"official": (433, 176), "split3": (434, 175)}),
            ("kard", 540, 540, 63630, {"is_train": (270, 270), "fold9": (486, 54)}),
            ("utkinect", 199, 199, 6020, {"is_train": (100, 99)}),
        ],
    )
    def test_real_data_sets(
        self,
        shared_data: Path,
        folder: str,
        clips: int,
        bodies: int,
        frames: int,
        splits: dict[str, tuple[int, int]],
    ) -> None:
        data = read_packed(shared_data / folder / f"{folder}.npz")
        assert (data.num_clips, data.num_bodies, data.num_frames) == (clips, bodies, frames)
        for name, (train, test) in splits.items():
            split = data.split(name)
            assert (int(split.train.sum()), int(split.test.sum())) == (train, test)
        assert len(data.dropped) == (folder == "penn_action")
        assert (data.valid is not None) == (folder == "penn_action")

    def test_nw_ucla_is_as_described(self, shared_data: Path) -> None:
        data = read_packed(shared_data / "nw_ucla" / "nw_ucla.npz")
        assert data.layout is get_layout("kinect20")
        summary = data.summary()
        assert summary["single_frame_clips"] == 2
        assert summary["clip_frames"] == {"shortest": 1, "median": 31, "longest": 201}
        assert len(data.label_names) == 10
        assert torch.equal(data.splits["official"].test, data.columns["view"] == 3)


class TestArchives:
    def test_a_missing_array_is_named(self, path: Path) -> None:
        np.savez(path, x=np.ones(3))
        with pytest.raises(ValueError, match=r"lacks an array: .*y"):
            npz.read_member(path, "y")
        with pytest.raises(ValueError, match=r"lacks an array: .*y"):
            list(npz.read_blocks(path, "y"))

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_a_truncated_archive(self, path: Path, share: float) -> None:
        np.savez(path, x=np.random.default_rng(0).normal(size=1000))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        for read in (
            npz.member_names,
            lambda path: npz.read_member(path, "x"),
            lambda p: list(npz.read_blocks(p, "x")),
        ):
            with pytest.raises(ValueError, match="no npz archive, or is truncated"):
                read(path)

    def test_a_damaged_archive(self, path: Path) -> None:
        np.savez_compressed(path, x=np.random.default_rng(0).normal(size=1000))
        content = bytearray(path.read_bytes())
        content[2000:2100] = bytes(100)
        path.write_bytes(content)
        for read in (lambda path: npz.read_member(path, "x"), lambda path: list(npz.read_blocks(path, "x"))):
            with pytest.raises(ValueError, match="no npz archive, or is truncated"):
                read(path)


class TestArrays:
    def test_trim_padding(self) -> None:
        padded = np.zeros((3, 5, 2, 4, 3))
        padded[0, 1, 1, 2, 0] = 1
        padded[2, 4, 0, 0, 2] = -1
        lengths = [len(clip) for clip in trim_padding(padded)]
        assert lengths == [2, 0, 5]

    def test_from_batch(self) -> None:
        batch = np.zeros((2, 3, 6, 17, 2))
        batch[:, :, :4, :, 0] = np.random.default_rng(0).normal(size=(2, 3, 4, 17))
        data = from_batch(torch.from_numpy(batch), layout="coco17", labels=[1, 0])
        assert data.num_bodies == 2
        assert data.offsets.tolist() == [0, 4, 8]
        np.testing.assert_allclose(data.coords[5].numpy(), batch[1, :, 1, :, 0].T, atol=1e-6)
        with pytest.raises(ValueError, match=r"shape \(2, 3\), expected \(N, C, T, V, M\)"):
            from_batch(np.ones((2, 3)), layout="coco17")
