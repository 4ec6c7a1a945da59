"""Every pooling and both ways to bring bodies together, in files for other runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastamr.export import OnnxModel, export_onnx, export_program
from fastamr.export.graph import ClassifierGraph, EncoderGraph, example_inputs, model_outputs, trace
from fastamr.export.predictor import Predictor
from fastamr.models import ActionClassifier
from fastamr.models.parts.pooling import POOLINGS, pooled_width

from ..features.puppets import model, puppets


def trained(pooling: str, bodies: str = "ordered") -> ActionClassifier:
    torch.manual_seed(0)
    own = ActionClassifier(model(), 3, pooling=pooling, bodies=bodies, hidden=0)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return own.eval()


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


@pytest.mark.parametrize("pooling", ["joints", *POOLINGS])
@pytest.mark.parametrize("slots", [(1, 1), (3, 2), (2, 4)])
def test_the_classifiers_graph_computes_what_the_model_does(pooling: str, slots: tuple[int, int]) -> None:
    own = trained(pooling)
    clips, present, valid = example_inputs(own, *slots)
    valid[0, 0, :, 2] = False
    present[-1, 1:] = False
    with torch.no_grad():
        found = ClassifierGraph(own)(
            torch.where(present[..., None, None, None], clips, torch.nan), present, valid
        )
    torch.testing.assert_close(found, model_outputs(own, (clips, present, valid))[0])


def test_slots_and_joints_that_hold_nothing_do_not_order_the_bodies() -> None:
    own = trained("mean")
    clips, present, valid = example_inputs(own, 2, 3)
    present[:] = torch.tensor([True, False, True])
    wild = clips.clone()
    wild[:, 1] = 1e3 * torch.randn_like(clips[:, 1])
    valid[:, 0, :, 1] = False
    wild[:, 0, :, 1] = torch.nan
    graph = ClassifierGraph(own)
    with torch.no_grad():
        torch.testing.assert_close(graph(wild, present, valid), graph(clips, present, valid))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_encoders_graph_pools(pooling: str) -> None:
    encoder = model()
    inputs = example_inputs(encoder, 4, 1)
    with torch.no_grad():
        features, _ = EncoderGraph(encoder, pooling)(*inputs)
    assert features.shape == (4, pooled_width(pooling, 8))
    torch.testing.assert_close(features, model_outputs(encoder, inputs, pooling)[0])


@pytest.mark.slow
@pytest.mark.parametrize("pooling", POOLINGS)
def test_onnx_of_classifier_and_encoder(pooling: str, tmp_path) -> None:
    needs_onnx()
    own = trained(pooling)
    assert export_onnx(own, tmp_path / "classifier.onnx") < 1e-4
    exported = OnnxModel(tmp_path / "classifier.onnx")
    assert (exported.description["pooling"], exported.description["bodies"]) == (pooling, "ordered")
    for slots in ((1, 1), (4, 1), (2, 3)):
        inputs = example_inputs(own, *slots)
        found = exported(
            **dict(zip(("clips", "present", "valid"), [one.numpy() for one in inputs], strict=True))
        )
        wanted = model_outputs(own, inputs)[0].numpy()
        np.testing.assert_allclose(found["logits"], wanted, atol=1e-4 * np.abs(wanted).max())
    data = puppets((1, 2, 3, 2), missing=True)
    plain, other = (Predictor(one, say=lambda line: None).probabilities(data) for one in (own, exported))
    torch.testing.assert_close(plain, other, atol=1e-5, rtol=1e-4)
    encoder = model()
    assert export_onnx(encoder, tmp_path / "encoder.onnx", pooling=pooling) < 1e-4
    assert OnnxModel(tmp_path / "encoder.onnx").description["pooling"] == pooling


def test_a_program_of_ordered_regions(tmp_path) -> None:
    own = trained("regions+time")
    export_program(own, tmp_path / "classifier.pt2")
    program = torch.export.load(tmp_path / "classifier.pt2").module()
    for slots in ((1, 1), (3, 4)):
        inputs = example_inputs(own, *slots)
        torch.testing.assert_close(program(*inputs), model_outputs(own, inputs)[0])


def test_a_clip_of_people_says_what_becomes_of_them() -> None:
    lines: list[str] = []
    list(Predictor(trained("regions"), say=lines.append).predict(puppets((1, 2, 3))))
    assert any(
        "2 of 3 clips show several people, of whom the two that move most make one answer" in line
        for line in lines
    )


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"was trained with pooling='regions': omit it"):
        trace(trained("regions"), "mean+max")
    with pytest.raises(ValueError, match="unknown pooling 'max'"):
        trace(model(), "max")
