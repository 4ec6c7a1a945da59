"""A classifier knows the size of the bodies that it was trained on, in every form in which it is kept."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastamr.cli import main
from fastamr.data import preprocess
from fastamr.data.body_size import body_size
from fastamr.export import Predictor, export_onnx, load_predictor
from fastamr.models import ActionClassifier

from .conftest import LAYOUT


@pytest.fixture
def sized(classifier, make_data) -> ActionClassifier:
    found = copy.deepcopy(classifier)
    found.body_size = body_size(make_data())
    return found


def scaled(data, factor):
    return dataclasses.replace(data, coords=factor * data.coords)


@pytest.mark.parametrize("form", ["folder", "model.onnx"])
def test_the_size_travels_and_another_one_is_said_once(sized, make_data, tmp_path, form, capsys) -> None:
    path = tmp_path / form
    if form == "folder":
        sized.save_pretrained(path)
    else:
        pytest.importorskip("onnxruntime")
        export_onnx(sized, path)
    predictor = load_predictor(path)
    list(predictor.predict(make_data()))
    assert capsys.readouterr().err == ""
    list(predictor.predict(scaled(make_data(), 1000), window=5))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "scale:factor=0.001 mends it" in line


def test_the_command_says_it_on_standard_error(sized, make_data, tmp_path, capsys) -> None:
    sized.save_pretrained(tmp_path / "model")
    scaled(make_data(), 1000).save(tmp_path / "mm.safetensors")
    capsys.readouterr()
    main(["predict", str(tmp_path / "mm.safetensors"), "--model", str(tmp_path / "model"), "--json"])
    printed = capsys.readouterr()
    assert "scale:factor=0.001" in printed.err
    assert len([json.loads(line) for line in printed.out.splitlines()]) == 7


@given(factor=st.sampled_from([1e-3, 0.01, 0.3048, 1.0, 1.5, 3.281, 39.37, 1000.0]))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_another_unit_never_changes_an_answer_silently(sized, make_data, factor) -> None:
    said: list[str] = []
    data = make_data()
    predictor = Predictor(sized, warn=said.append)
    answers = predictor.probabilities(predictor.prepare(scaled(data, factor)))
    if not said:
        assert 1 / 3 < factor < 3
        return
    step = said[0].partition("the step ")[2].split()[0]
    mended = predictor.probabilities(predictor.prepare(preprocess(scaled(data, factor), [step])))
    own = predictor.probabilities(predictor.prepare(data))
    torch.testing.assert_close(mended, own, atol=2e-2, rtol=0)
    assert not torch.allclose(answers, own, atol=2e-2)


def test_a_model_that_scales_by_the_trunk_is_not_alarmed(classifier, make_data) -> None:
    spined = dataclasses.replace(LAYOUT, spine=(0, 1))
    encoder = copy.deepcopy(classifier.encoder)
    steps = [{"name": "scale", "factor": 1.0, "unit": "torso", "per": "body"}]
    model = ActionClassifier(encoder, 3, hidden=0, pooling="mean", steps=steps)
    said: list[str] = []
    predictor = Predictor(model, warn=said.append)
    predictor.layout = spined
    data = dataclasses.replace(make_data(), layout=spined)
    one, two = (predictor.probabilities(predictor.prepare(scaled(data, factor))) for factor in (1, 1000))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    assert said == []


def test_joints_in_another_order_are_put_in_the_models(classifier, make_data) -> None:
    order = [3, 1, 0, 2]
    joints = tuple(LAYOUT.joints[joint] for joint in order)
    layout = dataclasses.replace(LAYOUT, name="other", joints=joints, parents=(1, 2, -1, 1))
    data, predictor = make_data(), Predictor(classifier)
    other = dataclasses.replace(data, layout=layout, coords=data.coords[:, order])
    assert torch.equal(predictor.prepare(other).coords, predictor.prepare(data).coords)
