"""Names of halves and splits as the field spells them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastamr.data.readers.array_files.halves import half_of, join_halves, splits_of_marks


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("train", ("official", "train")),
        ("TEST", ("official", "test")),
        ("Valset", ("official", "val")),
        ("train_split", ("official", "train")),
        ("testing_data", ("official", "test")),
        ("held-out", ("official", "test")),
        ("train1", ("official1", "train")),
        ("test_3", ("official3", "test")),
        ("xsub_train", ("xsub", "train")),
        ("Train_XSub", ("xsub", "train")),
        ("xsubTrain", ("xsub", "train")),
        ("xviewtest", ("xview", "test")),
        ("CS-VAL", ("cs", "val")),
        ("split1_train", ("split1", "train")),
        ("fold0/eval", ("fold0", "test")),
        ("cross_subject_validation_set", ("cross_subject", "val")),
        ("latest", None),
        ("interval", None),
        ("contest_a", None),
        ("few", None),
        ("", None),
    ],
)
def test_the_half_that_a_key_names(key: str, expected: tuple[str, str] | None) -> None:
    assert half_of(key) == expected


def test_three_halves_give_two_splits() -> None:
    masks = dict(zip(("a_train", "a_val", "a_test"), torch.eye(3).bool(), strict=True))
    splits, notes = join_halves(masks)
    assert {name: (s.train.tolist(), s.test.tolist()) for name, s in splits.items()} == {
        "a": ([True, False, False], [False, False, True]),
        "a_val": ([True, False, False], [False, True, False]),
    }
    assert notes == []
    assert join_halves({}) == ({}, [])


def test_words_without_a_half_are_in_neither() -> None:
    splits, notes = splits_of_marks("mine", np.array([b"Train", b"test ", b"unused", b""]))
    assert splits["mine"].train.tolist() == [True, False, False, False]
    assert splits["mine"].test.tolist() == [False, True, False, False]
    assert notes == ["split 'mine': clips marked '', 'unused' are in neither half"]
    _, notes = splits_of_marks("mine", np.array([True, True]))
    assert notes == ["split 'mine': its test half is empty"]
    with pytest.raises(ValueError, match="mine has codes 0 to 3, but 2 names"):
        splits_of_marks("mine", np.array([0, 3]), ["train", "test"])
