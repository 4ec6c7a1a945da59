"""Pre-training on several sets: all of each trains, or a line says what does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import PackedSkeletons, Split
from fastamr.models import load_pretrained
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.setup import pick_split, training_sequences

TINY = {
    "frames": 8, "width": 8, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2,
    "target_patches": 1,
}  # fmt: skip


def run(folder: Path, *data: PackedSkeletons, **options: Any) -> tuple[Path, dict[str, Any]]:
    """Train for one update on files of the sets; return the run's folder and the header of its metrics."""
    sources = []
    for place, one in enumerate(data):
        sources.append(str(folder / f"{place}.safetensors"))
        one.save(sources[-1])
    defaults = {
        "updates": 1,
        "batch_size": 4,
        "min_frames": 4,
        "progress": False,
        "tensorboard": False,
        "device": "cpu",
    }
    config = PretrainConfig(
        data=sources, out=str(folder / "run"), **{"architecture": TINY, **defaults, **options}
    )
    out = pretrain(config)
    return out, json.loads((out / "metrics.jsonl").read_text().splitlines()[0])


@pytest.fixture
def sets(skeletons: PackedSkeletons) -> list[PackedSkeletons]:
    """One with the split ``official``, one without any; both of people of half a metre's trunk."""
    size = 0.5 * torch.nn.functional.normalize(skeletons.coords, dim=-1)
    data = dataclasses.replace(skeletons, coords=size)
    names = [f"other{place}" for place in range(data.num_clips)]
    return [data, dataclasses.replace(data, splits={}, names=names, coords=-size)]


def test_a_set_without_the_split_is_trained_on_whole(tmp_path: Path, sets: Any, capsys: Any) -> None:
    alone = [len(training_sequences(one, "train", "official" if one.splits else None)) for one in sets]
    _, header = run(tmp_path, *sets)
    assert header["sequences"] == sum(alone)
    (note,) = header["notes"]
    assert "1.safetensors has no split 'official'" in note
    assert f"note: {note}" in capsys.readouterr().err


def test_all_and_the_case_of_a_name(tmp_path: Path, sets: Any) -> None:
    _, header = run(tmp_path, *sets, train_on="all", overwrite=True)
    assert header["sequences"] == sum(one.num_bodies for one in sets)
    assert header["notes"] == []
    out, header = run(tmp_path, *sets, split="OFFICIAL", overwrite=True)
    assert header["split"] == "official"
    assert PretrainConfig.load(out / "config.yaml").split == "official"


def test_labels_are_of_no_concern(tmp_path: Path, sets: Any) -> None:
    named = dataclasses.replace(
        sets[0], label_names=tuple(f"c{n}" for n in range(int(sets[0].labels.max()) + 1))
    )
    _, header = run(tmp_path, named, sets[1])
    assert header["sequences"] > 0
    assert any("labels are not used" in note for note in header["notes"])


def test_a_split_without_training_clips_is_refused(skeletons: PackedSkeletons) -> None:
    none = torch.zeros(skeletons.num_clips, dtype=torch.bool)
    data = dataclasses.replace(skeletons, splits={"test": Split(none, ~none)} | skeletons.splits)
    with pytest.raises(ValueError, match=r"split 'test' has no training clip .*other splits: \['official'\]"):
        training_sequences(data, "train", "test")


def test_no_set_has_the_split(sets: Any) -> None:
    with pytest.raises(ValueError, match="unknown split 'xsub': expected one of 'official'"):
        pick_split("xsub", sets, "train")
    with pytest.raises(ValueError, match="no split; make one with fastamr split"):
        pick_split("xsub", sets[1:], "train")
    assert pick_split(None, sets, "train") == "official"
    assert pick_split(None, sets[1:], "train") is None


def test_the_size_of_bodies_is_kept_and_another_one_said(tmp_path: Path, sets: Any, capsys: Any) -> None:
    out, header = run(tmp_path, sets[0])
    size = header["body_size"]
    assert header["warnings"] == []
    assert load_pretrained(out).body_size == size
    large = dataclasses.replace(sets[0], coords=1000 * sets[0].coords)
    _, header = run(tmp_path, large, overwrite=True)
    (text,) = header["warnings"]
    assert "--preprocess center scale:factor=0.001" in text
    assert f"warning: {text}" in capsys.readouterr().err
    out, header = run(tmp_path, large, overwrite=True, preprocess=["center", "scale:factor=0.001"])
    assert header["warnings"] == []
    assert header["body_size"] == pytest.approx(size, rel=1e-3)


def test_a_model_without_a_size_is_saved_as_before(tmp_path: Path, sets: Any) -> None:
    out, _ = run(tmp_path, sets[0])
    path = out / "config.json"
    description = json.loads(path.read_text())
    assert list(description) == ["model", "config", "body_size", "preprocess"]
    path.write_text(json.dumps({"model": description["model"], "config": description["config"]}))
    model = load_pretrained(out)
    assert model.body_size is None
    assert model.preprocess is None
    model.save_pretrained(tmp_path / "again")
    assert list(json.loads((tmp_path / "again" / "config.json").read_text())) == ["model", "config"]
    path.write_text(json.dumps(description | {"body_size": "large"}))
    with pytest.raises(ValueError, match="body_size is 'large', expected a positive number"):
        load_pretrained(out)


def test_files_of_different_layouts_train_together_as_body(tmp_path: Path, sets: Any) -> None:
    from fastamr.commands.models.pretrain import read
    from fastamr.data.preprocessing.convert_layout import convert
    from fastamr.errors import UsageError

    assert sets[0].layout.name != "kinect20"
    other = convert(sets[1], "kinect20")
    architecture = {**TINY, "layout": "body"}
    out, header = run(tmp_path, sets[0], other, architecture=architecture)
    assert load_pretrained(out).layout.name == "body"
    assert sum("parts of the layout body" in note for note in header["notes"]) == 2
    words = ["--data", "a", "b", "--out", "o", "--layout", "body"]
    assert read(words).architecture == {"layout": "body"}
    with pytest.raises(UsageError, match=r"--layout body and --model\.layout ntu25 differ"):
        read([*words, "--model.layout", "ntu25"])
