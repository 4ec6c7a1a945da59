"""A model of any skeleton in every command: data of other layouts become parts of a body by themselves."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr import cli
from fastamr.data import PackedSkeletons, load
from fastamr.data.to_body import as_body
from fastamr.export import load_predictor
from fastamr.features.extract import extract_features
from fastamr.finetuning.finetune import FinetuneConfig, finetune
from fastamr.models import ActionClassifier, SkeletonModel, build_model, load_pretrained
from fastamr.skeleton import BODY, get_layout

from ..models.body.sets import pack, saved

SIZES = {
    "frames": 8, "width": 8, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2,
    "target_patches": 1, "layout": "body",
}  # fmt: skip
OTHERS: dict[str, dict[str, Any]] = {
    "asma": {"hidden": 4, "projector": 8},
    "slim": {"patch_frames": 4, "prototypes": 16, "head_hidden": 8, "bottleneck": 8, "local_crops": 2},
}
"""Models that compare views of a sequence instead of predicting tokens."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on ntu25 and kinect20."""
    folder = tmp_path_factory.mktemp("body")
    sources = saved(folder, pack("ntu25"), pack("kinect20", 1))
    words = [
        word for name, value in SIZES.items() for word in (f"--model.{name.replace('_', '-')}", str(value))
    ]
    out = folder / "run"
    command = [
        "pretrain",
        "--data",
        *sources,
        "--out",
        str(out),
        *words,
        "--updates",
        "1",
        "--batch-size",
        "4",
    ]
    assert (
        cli.main([*command, "--min-frames", "4", "--device", "cpu", "--no-progress", "--no-tensorboard"]) == 0
    )
    return out


@pytest.fixture
def others(tmp_path: Path) -> list[str]:
    """Sets of coco17 in 3-D, which the run never saw, and of sbu15."""
    return saved(tmp_path, pack("coco17", 7, 8), pack("sbu15", 8, 8))


def report(folder: Path, *words: str) -> dict[str, Any]:
    target = folder / "report.json"
    assert cli.main([*words, "--out", str(target)]) == 0
    return json.loads(target.read_text())


@pytest.mark.parametrize("protocol", ["knn", "transfer"])
def test_evaluate_on_layouts_never_seen(
    run: Path, others: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    words = [
        "evaluate",
        "--checkpoint",
        str(run),
        "--protocol",
        protocol,
        "--no-cache",
        "--device",
        "cpu",
        "--seeds",
        "0",
    ]
    found = report(tmp_path, *words, "--data", others[0])
    assert found["results"]["encoder"]
    assert "NaN" not in json.dumps(found["results"]["encoder"])
    shown = capsys.readouterr().out
    assert (
        "5 joints are left out, the model's training data had none of them: nose, left_eye, right_eye"
        in shown
    )
    both = report(tmp_path, *words, "--data", *others)
    assert both["data"]["clips"] == 16


@pytest.mark.parametrize(("model", "own"), OTHERS.items())
def test_models_that_compare_views(
    model: str, own: dict[str, Any], others: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run on two layouts, and its features of a third one."""
    folder = tmp_path / "data"
    folder.mkdir()
    sources = saved(folder, pack("ntu25", clips=8), pack("kinect20", 1, 8))
    sizes = {name: value for name, value in SIZES.items() if name != "target_patches"} | own
    del sizes["layout"]
    words = [
        word for name, value in sizes.items() for word in (f"--model.{name.replace('_', '-')}", str(value))
    ]
    run = tmp_path / "run"
    words += [
        "--data",
        *sources,
        "--out",
        str(run),
        "--updates",
        "2",
        "--batch-size",
        "6",
        "--log-every",
        "1",
    ]
    words += ["--min-frames", "4", "--device", "cpu", "--no-progress", "--no-tensorboard"]
    assert cli.main(["pretrain", "--model", model, "--layout", "body", *words]) == 0
    found = load_pretrained(run)
    assert (found.name, found.config.typical_joints, len(found.config.present)) == (model, 22, 25)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(isfinite(line["loss"]) for line in lines if "loss" in line)
    capsys.readouterr()
    words = [
        "--data",
        others[0],
        "--protocol",
        "knn",
        "--pooling",
        "regions",
        "--no-cache",
        "--device",
        "cpu",
    ]
    assert "NaN" not in json.dumps(report(tmp_path, "evaluate", "--checkpoint", str(run), *words))
    assert "5 joints are left out" in capsys.readouterr().out


def test_evaluation_is_that_of_the_converted_data(run: Path) -> None:
    model = load_pretrained(run)
    data = pack("kinect20", 4)
    assert torch.equal(extract_features(model, data), extract_features(model, as_body(data)))
    with pytest.raises(ValueError, match="a hand is no body"):
        extract_features(model, pack("hand21", 4))


def test_features_do_not_depend_on_the_other_sets(run: Path) -> None:
    from fastamr.data.joining import gather

    model = load_pretrained(run).double()
    sets = [pack("ntu25", 2), pack("kinect20", 4), pack("coco17", 5)]
    together = extract_features(model, gather(sets, list("abc"), layout=BODY).data)
    alone = torch.cat([extract_features(model, one) for one in sets])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7)


def classifier_of(model: SkeletonModel, data: PackedSkeletons, **options: Any) -> ActionClassifier:
    recipe = FinetuneConfig(epochs=1, batch_size=4, hidden=0, **options)
    split = data.split("official")
    return finetune(model, data, (split.train, split.test), recipe).classifier


def test_finetune_predict_and_export(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    words = [
        "finetune",
        "--checkpoint",
        str(run),
        "--recipe.epochs",
        "1",
        "--device",
        "cpu",
        "--recipe.batch-size",
        "4",
    ]
    (source,) = saved(tmp_path, pack("ntu25", 3, 12))
    folder = tmp_path / "classifier"
    assert cli.main([*words, "--data", source, "--out", str(folder)]) == 0
    classifier = ActionClassifier.from_pretrained(folder)
    assert classifier.source == get_layout("ntu25")
    assert len(classifier.source_joints or ()) == 25
    assert cli.main(["export", str(folder), "--onnx", str(tmp_path / "c.onnx")]) == 0
    own, exported = load_predictor(folder), load_predictor(tmp_path / "c.onnx")
    data = load(source)
    # The exported graph takes clips of the layout that the classifier was trained on.
    assert exported.layout == get_layout("ntu25")
    first, second = (one.probabilities(one.prepare(data)) for one in (own, exported))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    # The folder names actions of other skeletons too.
    other = pack("kinect20", 6)
    assert own.probabilities(own.prepare(other)).shape == (6, 2)
    assert cli.main(["predict", source, "--model", str(folder)]) == 0


def test_a_classifier_of_several_layouts(run: Path, others: list[str], tmp_path: Path) -> None:
    from fastamr.data.joining import gather
    from fastamr.export import export_onnx

    model = load_pretrained(run)
    data = gather([load(one) for one in others], others, layout=BODY).data
    classifier = classifier_of(model, data)
    assert classifier.source is None
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert export_onnx(classifier, tmp_path / "mixed.onnx") < 1e-4
    exported = load_predictor(tmp_path / "mixed.onnx")
    classifier.save_pretrained(tmp_path / "folder")
    own = load_predictor(tmp_path / "folder")
    for clips in (load(others[0]), pack("ntu25", 9)):
        torch.testing.assert_close(
            own.probabilities(own.prepare(clips)),
            exported.probabilities(exported.prepare(clips)),
            rtol=1e-4,
            atol=1e-5,
        )


def test_the_encoder_exports(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from fastamr.export import export_onnx

    assert export_onnx(load_pretrained(run), tmp_path / "encoder.onnx") < 1e-4


def test_distill_and_show(run: Path, tmp_path: Path) -> None:
    (source,) = saved(tmp_path, pack("sbu15", 3, 12))
    words = [
        "distill",
        "--teacher",
        str(run),
        "--data",
        source,
        "--out",
        str(tmp_path / "student"),
        "--device",
        "cpu",
    ]
    assert cli.main([*words, "--recipe.epochs", "1", "--student.width", "6", "--seeds", "0"]) == 0
    pytest.importorskip("matplotlib")
    for what in ("--reconstruction", "--mask"):
        picture = tmp_path / f"{what[2:]}.png"
        assert cli.main(["show", source, "--checkpoint", str(run), what, "--out", str(picture)]) == 0
        assert picture.stat().st_size > 1000


def test_source_needs_a_body() -> None:
    plain = build_model("amr", {**SIZES, "layout": "ntu25"})
    with pytest.raises(ValueError, match="source='kinect20': expected a layout with parts of a body"):
        ActionClassifier(plain, 2, source=get_layout("kinect20"))
