"""The labelled halves of a split, and the lines that tell of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fastamr.data import Split
from fastamr.features.splits import describe_halves, labelled_split, training_split, untrained_classes


def test_what_is_left_out_is_counted(make_data) -> None:
    labels = [place % 3 for place in range(24)]
    labels[0] = labels[5] = labels[7] = -1
    train = torch.arange(24) < 12
    data = make_data(
        labels=labels, splits={"Mine": Split(train, (torch.arange(24) >= 12) & (torch.arange(24) < 20))}
    )
    halves = labelled_split(data, "mine")
    text = describe_halves(data, "Mine", halves)
    assert text == (
        "split 'Mine': 9 training and 8 test clips with a label, 3 classes; 3 without a label are left out; "
        "4 in neither half are left out"
    )
    every = training_split(data, None)
    assert (int(every[0].sum()), int(every[1].sum())) == (21, 0)
    assert describe_halves(data, None, every).startswith("all clips train: 21 training and 0 test clips")


def test_a_class_that_is_never_trained_is_named_with_its_clips(make_data) -> None:
    names = [f"clip_{place}" for place in range(24)]
    data = make_data(labels=[0] * 12 + [1] * 2 + [2] * 4 + [0] * 6, names=names, label_names=("a", "b", "c"))
    train = torch.arange(24) < 12
    (text,) = untrained_classes(data, (train, ~train))
    assert text == (
        "6 test clips are of classes that no training clip has, so that they count as wrong: "
        "'b' (2 clips: clip_12, clip_13); 'c' (4 clips: clip_14, clip_15, clip_16, ...)"
    )
    (text,) = untrained_classes(dataclasses.replace(data, label_names=()), (train, ~train))
    assert "class 1 (2 clips" in text
    assert untrained_classes(data, (~train, ~train)) == []


def test_many_classes_are_counted(make_data) -> None:
    train = torch.arange(24) < 1
    (text,) = untrained_classes(make_data(labels=list(range(24))), (train, ~train))
    assert text.startswith("23 test clips")
    assert text.endswith("and 18 more classes")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": None}, r"none of the 24 clips has a label.*fastamr import SOURCE OUT --labels folder"),
        ({"splits": {}}, r"unknown split 'official'.*fastamr split DATA --by random --test 0.2 --name mine"),
        ({"labels": [-1, 0] * 12}, r"no labelled training clip .12 without a label.*fastamr split DATA"),
    ],
)
def test_errors_name_the_way_on(make_data, fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labelled_split(make_data(**fields), "official")


def test_one_class_cannot_be_learnt(make_data) -> None:
    train = torch.arange(24) < 12
    data = make_data(
        labels=[1] * 12 + [0, 1] * 6, label_names=("a", "b"), splits={"mine": Split(train, ~train)}
    )
    with pytest.raises(ValueError, match="all 12 labelled training clips are of class 'b', and two classes"):
        training_split(data, "mine")
    with pytest.raises(ValueError, match="all 24 labelled training clips are of class 0"):
        training_split(make_data(labels=[0] * 24), None)


def test_a_split_without_labels_does_not_offer_itself(make_data) -> None:
    train = torch.arange(24) < 12
    data = make_data(labels=[-1] * 12 + [0, 1] * 6, splits={"mine": Split(train, ~train)})
    with pytest.raises(ValueError, match=r"no labelled training clip \(12 without a label\): make one with"):
        labelled_split(data, "mine")
