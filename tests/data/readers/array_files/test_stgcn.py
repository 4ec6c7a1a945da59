"""The arrays of ST-GCN with their labels: halves, padding, other spellings, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import PackedSkeletons, from_batch, read
from fastamr.data.readers.array_files import stgcn

from ..reading import clip_of

RNG = np.random.default_rng(0)
NAMES = [f"S001C001P00{person}R001A00{person}.skeleton" for person in (1, 2, 3)]


def batch(
    lengths: tuple[int, ...] = (4, 6, 2), joints: int = 25, size: int = 3, bodies: int = 2
) -> np.ndarray:
    """``(N, C, 8, V, M)`` float32, zero behind each length; only the first clip has the second body."""
    data = np.zeros((len(lengths), size, 8, joints, bodies), dtype=np.float32)
    for place, length in enumerate(lengths):
        data[place, :, :length, :, 0] = RNG.normal(size=(size, length, joints))
    data[0, :, :3, :, 1:] = RNG.normal(size=(size, 3, joints, bodies - 1))
    return data


def write_half(folder: Path, half: str, data: np.ndarray, labels: Any, suffix: str = "_joint") -> None:
    np.save(folder / f"{half}_data{suffix}.npy", data)
    if labels is not None:
        (folder / f"{half}_label.pkl").write_bytes(pickle.dumps(labels))


def told(path: Path, **options: Any) -> tuple[PackedSkeletons, str]:
    notes: list[str] = []
    return read(path, say=notes.append, **options), "\n".join(notes)


class TestHalves:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_half(tmp_path, "train", batch(), (NAMES, [0, 1, 2]))
        write_half(tmp_path, "val", batch((3,)), ([NAMES[0].replace("C001", "C002")], [0]))
        return tmp_path

    @pytest.mark.parametrize(
        "given", ["train_data_joint.npy", "val_data_joint.npy", "train_label.pkl", "val_label.pkl", "."]
    )
    def test_any_of_the_files_or_the_folder_brings_both(self, folder: Path, given: str) -> None:
        data, notes = told(folder / given)
        assert data.layout.name == "ntu25"
        assert data.offsets.diff().tolist() == [4, 4, 6, 2, 3, 3]
        assert data.names == [*NAMES, "S001C002P001R001A001.skeleton"]
        assert data.labels.tolist() == [0, 1, 2, 0]
        assert data.label_names[:2] == ("drink water", "eat meal/snack")
        assert data.splits["official"].train.tolist() == [True, True, True, False]
        assert data.splits["official"].test.tolist() == [False, False, False, True]
        assert data.columns["view"].tolist() == [1, 1, 1, 2]
        assert data.fps.unique().tolist() == [30]
        assert "read together: train_data_joint.npy, val_data_joint.npy" in notes

    def test_coordinates_are_those_of_the_array(self, folder: Path) -> None:
        array = np.load(folder / "train_data_joint.npy")
        bodies = clip_of(read(folder), NAMES[0])
        for body in range(2):
            np.testing.assert_array_equal(bodies[body], array[0, :, :4, :, body].transpose(1, 2, 0))

    def test_pieces_give_the_same(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = read(folder).fingerprint()
        monkeypatch.setattr(stgcn, "_BLOCK_BYTES", 1)
        assert read(folder).fingerprint() == whole

    def test_a_folder_of_a_protocol_names_the_split(self, folder: Path) -> None:
        moved = folder / "xsub"
        moved.mkdir()
        for file in list(folder.glob("*.*")):
            file.rename(moved / file.name)
        assert list(read(moved).splits) == ["xsub"]
        assert list(read(moved / "val_label.pkl").splits) == ["xsub"]

    def test_the_same_as_from_batch(self, folder: Path) -> None:
        data = from_batch(np.load(folder / "train_data_joint.npy"), layout="ntu25")
        assert data.offsets.diff().tolist() == [4, 4, 6, 2]
        assert data.coords.equal(read(folder).coords[: len(data.coords)])


class TestOneHalf:
    def test_without_labels(self, tmp_path: Path) -> None:
        write_half(tmp_path, "train", batch(), None, "")
        data, notes = told(tmp_path / "train_data.npy")
        assert data.names == ["train0", "train1", "train2"]
        assert data.labels.tolist() == [-1, -1, -1]
        assert "train_data.npy: no labels beside it, its classes are unknown" in notes
        assert "split 'official': its test half is empty" in notes
        assert data.fps.isnan().all()

    @pytest.mark.parametrize("ending", ["npy", "json", "pkl"])
    def test_labels_without_names(self, tmp_path: Path, ending: str) -> None:
        write_half(tmp_path, "test", batch(), None)
        file = tmp_path / f"test_label.{ending}"
        if ending == "npy":
            np.save(file, np.array([2, 0, 1]))
        else:
            file.write_bytes(pickle.dumps([2, 0, 1]) if ending == "pkl" else b"[2, 0, 1]")
        data = read(tmp_path / "test_data_joint.npy")
        assert (data.labels.tolist(), data.names) == ([2, 0, 1], ["test0", "test1", "test2"])

    def test_text_labels_and_a_dictionary(self, tmp_path: Path) -> None:
        write_half(tmp_path, "train", batch(), {"names": ["a", "b", "c"], "labels": ["walk", "run", "walk"]})
        data = read(tmp_path / "train_label.pkl")
        assert (data.labels.tolist(), data.label_names) == ([1, 0, 1], ("run", "walk"))
        (tmp_path / "train_label.pkl").unlink()
        (tmp_path / "train_label.json").write_text(json.dumps([["a", "b", "c"], [0, 1, 0]]))
        assert read(tmp_path).labels.tolist() == [0, 1, 0]

    def test_kinetics_has_a_confidence_as_third_channel(self, tmp_path: Path) -> None:
        data = batch(joints=18)
        data[:, :2] = np.clip(data[:, :2], -0.5, 0.5)
        data[:, 2] = np.abs(np.sin(data[:, 2]))
        write_half(tmp_path, "val", data, (["a", "b", "c"], [5, 6, 7]), "")
        found, notes = told(tmp_path, min_confidence=0.2)
        assert found.layout.name == "openpose18"
        assert found.coords.shape[2] == 2
        assert "third channel, by the format, is taken as the joints' confidence" in notes
        assert found.valid is not None
        assert np.array_equal(found.valid[:4].numpy(), data[0, 2, :4, :, 0] >= 0.2)

    def test_a_clip_of_zeros_is_dropped_and_listed(self, tmp_path: Path) -> None:
        write_half(tmp_path, "train", batch((4, 0, 2)), (NAMES, [0, 1, 2]))
        data = read(tmp_path)
        assert data.dropped == {NAMES[1]: "no frames"}
        assert data.labels.tolist() == [0, 2]


@pytest.mark.parametrize("stream", ["bone", "joint_motion", "bone_motion", "motion", "vel"])
def test_derived_streams_are_refused(tmp_path: Path, stream: str) -> None:
    np.save(tmp_path / f"train_data_{stream}.npy", batch())
    with pytest.raises(ValueError, match=r"derived from the joints .* give train_data_joint.npy"):
        read(tmp_path / f"train_data_{stream}.npy")


def test_what_does_not_fit(tmp_path: Path) -> None:
    write_half(tmp_path, "train", batch(), (NAMES[:2], [0, 1]))
    with pytest.raises(
        ValueError, match=r"names 2 clips with 2 labels, but train_data_joint.npy has 3 clips"
    ):
        read(tmp_path)
    write_half(tmp_path, "train", batch(), (NAMES, [0, 1, 2]))
    write_half(tmp_path, "val", batch(joints=20), (NAMES, [0, 1, 2]))
    with pytest.raises(ValueError, match="have joints of different skeletons"):
        read(tmp_path)
    write_half(tmp_path, "val", batch()[0], None)
    with pytest.raises(ValueError, match=r"val_data_joint.npy has shape \(3, 8, 25, 2\)"):
        read(tmp_path)
    write_half(tmp_path, "val", batch() * 0, None)
    with pytest.raises(ValueError, match="every value is 0; the data set is empty"):
        read(tmp_path)
    write_half(tmp_path, "val", batch(joints=17), None)
    with pytest.raises(ValueError, match="17 joints without names, which several layouts have"):
        read(tmp_path)
    (tmp_path / "val_data_joint.npy").unlink()
    (tmp_path / "train_label.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"train_label.pkl holds no \(names, labels\) of 3 clips"):
        read(tmp_path)
    (tmp_path / "train_label.pkl").write_bytes(pickle.dumps((["a", "b", "c"], [0, -2, 1])))
    with pytest.raises(ValueError, match=r"train_label.pkl, row 1: -2 is no class index"):
        read(tmp_path)
