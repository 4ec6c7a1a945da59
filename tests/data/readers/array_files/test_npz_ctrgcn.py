"""The npz files of CTR-GCN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastamr.data import PackedSkeletons
from fastamr.data.readers import Source
from fastamr.data.readers.array_files import npz_ctrgcn
from fastamr.data.readers.common import npz


def read_ctrgcn(path: Path) -> PackedSkeletons:
    return npz_ctrgcn.read(Source(path)).data


class TestCtrgcnLayout:
    @pytest.fixture
    def clips(self) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        clips = [rng.normal(size=(frames, 2, 25, 3)).astype(np.float32) for frames in (7, 3, 10, 1)]
        clips[1][:, 1] = 0
        clips[2][4] = 0
        return clips

    @staticmethod
    def padded(clips: list[np.ndarray], frames: int = 10) -> np.ndarray:
        padded = np.zeros((len(clips), frames, 150), dtype=np.float32)
        for place, clip in enumerate(clips):
            padded[place, : len(clip)] = clip.reshape(len(clip), 150)
        return padded

    def save(self, path: Path, clips: list[np.ndarray], **changes: Any) -> None:
        arrays = {
            "x_train": self.padded(clips[:3]),
            "y_train": np.eye(5, dtype=np.float32)[[4, 0, 2]],
            "x_test": self.padded(clips[3:]),
            "y_test": np.eye(5, dtype=np.float32)[[1]],
        }
        np.savez(path, **(arrays | changes))

    def test_padding_goes_and_gaps_stay(self, path: Path, clips: list[np.ndarray]) -> None:
        self.save(path, clips)
        data = read_ctrgcn(path)
        assert data.layout.name == "ntu25"
        assert data.body_clip.tolist() == [0, 0, 1, 2, 2, 3, 3]
        assert data.offsets.diff().tolist() == [7, 7, 3, 10, 10, 1, 1]
        bodies = [
            clips[0][:, 0],
            clips[0][:, 1],
            clips[1][:, 0],
            *clips[2].swapaxes(0, 1),
            *clips[3].swapaxes(0, 1),
        ]
        assert np.array_equal(data.coords.numpy(), np.concatenate(bodies))
        assert data.labels.tolist() == [4, 0, 2, 1]
        assert data.names == ["train0", "train1", "train2", "test0"]
        assert data.splits["official"].train.tolist() == [True, True, True, False]
        assert data.splits["official"].test.tolist() == [False, False, False, True]
        assert data.fps.unique().tolist() == [30]

    def test_an_empty_clip_is_dropped_and_listed(self, path: Path, clips: list[np.ndarray]) -> None:
        clips[1][:] = 0
        self.save(path, clips, y_train=np.array([3, 1, 2]))
        data = read_ctrgcn(path)
        assert data.dropped == {"train1": "no frames"}
        assert data.labels.tolist() == [3, 2, 1]

    def test_one_body_and_unknown_labels(self, path: Path, clips: list[np.ndarray]) -> None:
        x_train = self.padded(clips[:3])[:, :, :75]
        self.save(path, clips, x_train=x_train, y_train=np.zeros((3, 5)))
        data = read_ctrgcn(path)
        assert data.body_clip.tolist() == [0, 1, 2, 3, 3]
        assert data.labels.tolist() == [-1, -1, -1, 1]

    def test_labels_as_a_column_and_as_text(self, path: Path, clips: list[np.ndarray]) -> None:
        self.save(path, clips, y_train=np.array([[4], [0], [2]]), y_test=np.array([[1]]))
        assert read_ctrgcn(path).labels.tolist() == [4, 0, 2, 1]
        self.save(
            path, clips, y_train=np.array(["walk", "sit", "walk"]), y_test=np.array(["run"]), extra=np.ones(2)
        )
        reading = npz_ctrgcn.read(Source(path))
        assert reading.data.labels.tolist() == [2, 1, 2, 0]
        assert reading.data.label_names == ("run", "sit", "walk")
        assert reading.notes == ["arrays that are not read: extra"]

    def test_pieces_give_the_same(
        self, path: Path, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.save(path, clips)
        whole = read_ctrgcn(path)
        monkeypatch.setattr(npz, "_BLOCK_BYTES", 10 * 150 * 4)
        assert [len(block) for block in npz.read_blocks(path, "x_train")] == [1, 1, 1]
        assert read_ctrgcn(path).fingerprint() == whole.fingerprint()

    def test_bad_coordinates_name_the_clip_and_the_frame(self, path: Path, clips: list[np.ndarray]) -> None:
        clips[2][9, 1, 24, 2] = np.inf
        self.save(path, clips)
        with pytest.raises(ValueError, match=r"clip 2 \('train2'\), frame 9, body 1, joint 24"):
            read_ctrgcn(path)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"x_train": np.ones((3, 10, 100), dtype=np.float32)},
                r"x_train has shape \(N, 10, 100\), expected .*150",
            ),
            ({"x_train": np.ones((3, 150), dtype=np.float32)}, "x_train has shape"),
            (
                {"y_train": np.eye(5)[:2]},
                r"y_train has shape \(2, 5\) of float64, expected \(3, classes\) one-hot",
            ),
            ({"x_test": np.array([None])}, "x_test.*expected plain numbers in C order"),
            ({"x_train": np.ones((10, 150, 3)).T}, "in C order"),
            ({"y_test": np.array([None])}, "y_test.*Object arrays"),
            ({"y_test": np.array([[1, 1, 0]])}, "y_test, row 0: .* is not one-hot, expected one 1"),
            ({"y_test": np.array([[0.5, 0.5, 0]])}, "y_test, row 0: .* is not one-hot"),
            ({"y_test": np.array(["run"])}, "one of y_train and y_test is text"),
            ({"y_test": np.array([-3])}, "y_test, row 0: -3 is no class index"),
        ],
    )
    def test_bad_files(
        self, path: Path, clips: list[np.ndarray], changes: dict[str, Any], message: str
    ) -> None:
        self.save(path, clips, **changes)
        with pytest.raises(ValueError, match=message):
            read_ctrgcn(path)
