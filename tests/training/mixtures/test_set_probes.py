"""Probes of each set of a mixture and of sets that are held out."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import PackedSkeletons, Split, apply_missing
from fastamr.data.preprocessing.convert_layout import convert
from fastamr.features import extract_features
from fastamr.models import load_pretrained
from fastamr.probes import knn_accuracy
from fastamr.training import pretrain


def change(source: str, target: Path, **changes: Any) -> str:
    data = PackedSkeletons.load(source)
    dataclasses.replace(data, **changes).save(target)
    return str(target)


def probed_alone(run: Path, source: str, split: str = "official") -> float:
    """The 1-NN accuracy of a run's model on one file, computed without the run."""
    data = apply_missing(PackedSkeletons.load(source), ["center"])
    features, halves = extract_features(load_pretrained(run), data), data.split(split)
    train, test = (half & (data.labels >= 0) for half in (halves.train, halves.test))
    return knn_accuracy(features[train], data.labels[train], features[test], data.labels[test], k=1)


@pytest.fixture
def held(files: list[str], tmp_path: Path, make_skeletons: Callable[..., Any]) -> str:
    """A file of another split, which no run trains on."""
    data = make_skeletons(30, seed=9)
    halves = Split(torch.arange(30) % 2 == 0, torch.arange(30) % 2 == 1)
    named = [f"held{place}" for place in range(30)]
    dataclasses.replace(data, splits={"own": halves}, names=named).save(tmp_path / "held.safetensors")
    return str(tmp_path / "held.safetensors")


@pytest.mark.parametrize("budget", [None, 0.0])
def test_each_set_and_those_that_are_held_out(
    train: Any, files: list[str], held: str, tmp_path: Path, budget: float | None
) -> None:
    plain = train("plain", files, mixture=0.5, data_budget=budget)
    found = train("run", files, mixture=0.5, held_out_data=[held], probe_every=1.25, data_budget=budget)
    assert [line["update"] for line in found["probe"]] == [10]
    line = found["probe"][-1]
    names = [name for name in line if name.startswith(("knn", "probe/"))]
    assert names == ["knn_1", "probe/a", "probe/b", "probe/c", "probe/held"]
    for name, source in zip("abc", files, strict=True):
        assert line[f"probe/{name}"] == pytest.approx(probed_alone(tmp_path / "run", source))
    assert line["probe/held"] == pytest.approx(probed_alone(tmp_path / "run", held, "own"))
    assert [one["loss"] for one in plain["train"]][-1] == [one["loss"] for one in found["train"]][-1]
    assert found["header"][0]["held_out"] == [{"name": "held", "clips": 30, "split": "own"}]
    assert "held out held: 30 clips" in found["header"][0]["plan"]
    assert held in (tmp_path / "run" / "config.yaml").read_text()
    # No clip of it was drawn, and its clips are none of the header's.
    assert found["header"][0]["all_clips"] == 70


def test_what_cannot_be_probed_is_named_once(train: Any, files: list[str], held: str, tmp_path: Path) -> None:
    unlabelled = change(files[0], tmp_path / "blank.safetensors", labels=torch.full((20,), -1))
    whole = change(files[1], tmp_path / "whole.safetensors", splits={})
    bare = change(held, tmp_path / "bare.safetensors", splits={})
    sets = [unlabelled, whole, files[2]]
    found = train("run", sets, mixture=0.0, held_out_data=[bare], probe_every=1.25)
    notes = [note for note in found["header"][0]["notes"] if "not probed" in note]
    assert [note.split()[0] for note in notes] == ["blank", "whole", "bare"]
    assert "(split 'official')" in notes[0]
    assert "(no split)" in notes[2]
    assert [name for name in found["probe"][0] if "probe" in name] == ["probe/c"]


def test_a_held_out_set_alone_may_have_labels(
    train: Any, files: list[str], held: str, tmp_path: Path
) -> None:
    unlabelled = change(files[0], tmp_path / "blank.safetensors", labels=torch.full((20,), -1))
    found = train("run", [unlabelled], held_out_data=[held], probe_every=2.5)
    assert [name for name in found["probe"][0] if "knn" in name or "probe" in name] == ["probe/held"]
    found = train("other", files[:1], held_out_data=[held])
    assert any("held-out sets are named and not used" in note for note in found["header"][0]["notes"])


def test_nothing_to_probe_is_refused(configure: Any, files: list[str], tmp_path: Path) -> None:
    blank = [
        change(source, tmp_path / f"blank{place}.safetensors", labels=torch.full((count,), -1))
        for place, (source, count) in enumerate(zip(files, (20, 10, 40), strict=True))
    ]
    with pytest.raises(ValueError, match="probe_every needs labelled training clips"):
        pretrain(configure("run", blank, mixture=0.5, probe_every=1.0), quiet=True)


def test_held_out_data_are_not_trained_on(
    configure: Any, train: Any, files: list[str], held: str, tmp_path: Path
) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(files[2])
    with pytest.raises(
        ValueError, match=r"held_out_data names .*link.*, which is trained on as --data .*c\.safetensors"
    ):
        pretrain(configure("run", files, held_out_data=[str(link)]), quiet=True)
    copy = shutil.copy(files[2], tmp_path / "copy.safetensors")
    warnings = train("copied", files, held_out_data=[str(copy)])["header"][0]["warnings"]
    assert any(
        "both have 40 clips of one name" in text and "the same coordinates" in text for text in warnings
    )


def test_a_held_out_set_has_the_layout_of_the_others(
    configure: Any, files: list[str], tmp_path: Path
) -> None:
    other = tmp_path / "coco.safetensors"
    convert(PackedSkeletons.load(files[0]), "kinect20", missing="mask").save(other)
    with pytest.raises(
        ValueError, match=r"held_out_data .*coco.* has layout 'kinect20' with 3 channels, .* 'ntu25'"
    ):
        pretrain(configure("run", files, held_out_data=[str(other)]), quiet=True)
