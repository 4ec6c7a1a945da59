"""Evaluation of several sets, and of bodies of another size."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from fastamr.evaluation.evaluate import EvaluateConfig, evaluate
from fastamr.models import build_model


@pytest.fixture
def run(tmp_path, make_data):
    """A folder of a small encoder that knows the size of its training's bodies."""
    model = build_model(
        "amr", layout=make_data(clips=1).layout, frames=8, width=16, depth=1, heads=2, decoder_width=8,
        decoder_depth=1, decoder_heads=2, target_patches=1,
    )  # fmt: skip
    model.body_size = 0.55
    model.save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def evaluated(run, folder, *sets, **more: Any) -> dict[str, Any]:
    paths = []
    for place, data in enumerate(sets):
        names = [f"{place}_{clip}" for clip in range(data.num_clips)]
        paths.append(str(folder / f"{place}.safetensors"))
        dataclasses.replace(data, names=names).save(paths[-1])
    return evaluate(
        EvaluateConfig(checkpoint=run, data=paths, device="cpu", protocol="knn", cache=False, **more)
    )


def test_a_set_without_the_split_trains_whole(run, make_data, tmp_path, capsys) -> None:
    report = evaluated(run, tmp_path, make_data(), make_data(splits={}), split="OFFICIAL")
    assert (report["split"]["train"], report["split"]["test"]) == (36, 12)
    assert report["config"]["split"] == "official"
    (note,) = report["notes"]
    assert "all its 24 clips are training clips" in note
    assert note in capsys.readouterr().out
    assert report["warnings"] == []


def test_a_warning_is_printed_once(run, make_data, tmp_path, capsys) -> None:
    data = make_data()
    report = evaluated(run, tmp_path, dataclasses.replace(data, coords=data.coords * 1000))
    (warning,) = report["warnings"]
    said = capsys.readouterr()
    assert (said.out + said.err).count(warning) == 1


def test_numbers_beside_names(run, make_data, tmp_path) -> None:
    sets = make_data(label_names=("a", "b", "c")), make_data()
    with pytest.raises(ValueError, match=r"1.safetensors labels 24 .*--label-numbers"):
        evaluated(run, tmp_path, *sets)
    report = evaluated(run, tmp_path, *sets, label_numbers=True)
    assert report["split"]["test"] == 24
    assert "--label-numbers" in report["command"]


def test_a_class_that_only_tests_is_written(run, make_data, tmp_path, capsys) -> None:
    labels = [2 * (place % 2) for place in range(24)]
    labels[3] = 0
    report = evaluated(run, tmp_path, make_data(labels=labels))
    assert "11 test clips are of classes that no training clip has" in report["warnings"][0]
    assert "class 2 (11 clips: 0_1, 0_5, 0_7, ...)" in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "step"), [(1000.0, "0.001"), (100.0, "0.01"), (1.0, None)])
def test_bodies_of_another_size(run, make_data, tmp_path, capsys, factor, step) -> None:
    data = make_data()
    report = evaluated(run, tmp_path, dataclasses.replace(data, coords=factor * data.coords))
    errors = capsys.readouterr().err
    if step is None:
        assert report["warnings"] == []
        assert errors == ""
    else:
        assert f"scale:factor={step} mends it" in report["warnings"][0]
        assert "warning: " in errors
    (run / "config.yaml").write_text(yaml.safe_dump({"preprocess": ["scale:unit=torso"]}))
    assert evaluated(run, tmp_path, dataclasses.replace(data, coords=factor * data.coords))["warnings"] == []
