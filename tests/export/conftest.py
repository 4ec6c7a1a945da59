from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fastamr.data import PackedSkeletons
from fastamr.models import ActionClassifier, build_model
from fastamr.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout("chain4", ("root", "neck", "head", "hand"), (-1, 0, 1, 1), ())
CLASSES = ("still", "wave", "reach")


def moving(label: int, frames: int, seed: int = 0, bodies: int = 1) -> np.ndarray:
    """``(T, M, V, C)``: the hand hangs, swings or points up; bodies stand metres apart."""
    generator = np.random.default_rng(seed)
    time = np.arange(frames)
    clip = np.tile([[0, 1, 3], [0, 1.5, 3], [0, 1.7, 3], [0.2, 1.0, 3]], (frames, bodies, 1, 1))
    if label == 1:
        clip[:, :, 3, 0] += (0.4 * np.sin(time * 1.3))[:, None]
    if label == 2:
        clip[:, :, 3, 1] += 0.9
    clip[..., 0] += 2.0 * np.arange(bodies)[None, :, None]
    return (clip + 0.01 * generator.standard_normal(clip.shape)).astype(np.float32)


@pytest.fixture(scope="session")
def classifier() -> ActionClassifier:
    """Trained on moving(): its features are a random encoder's, which suffice."""
    pytest.importorskip("sklearn")
    from fastamr.data import preprocess
    from fastamr.finetuning.linear_head import linear_classifier

    torch.manual_seed(0)
    encoder = build_model(
        "amr", layout=LAYOUT, frames=16, width=32, depth=1, heads=2, decoder_width=8, decoder_depth=1,
        decoder_heads=2, target_patches=1,
    )  # fmt: skip
    clips = [moving(place % 3, 10 + place % 9, seed=place, bodies=1 + place % 2) for place in range(90)]
    data = PackedSkeletons.from_clips(
        clips, layout=LAYOUT, labels=[place % 3 for place in range(90)], label_names=CLASSES, fps=10
    )
    return linear_classifier(encoder, preprocess(data, ["center"]), torch.ones(90, dtype=torch.bool))


@pytest.fixture
def make_data() -> Callable[..., PackedSkeletons]:
    """Raw clips of the given classes; every second one has two bodies."""

    def make(labels: tuple[int, ...] = (0, 1, 2, 1, 0, 2, 1), **more) -> PackedSkeletons:
        clips = [
            moving(label, 9 + 2 * place, 50 + place, 1 + place % 2) for place, label in enumerate(labels)
        ]
        return PackedSkeletons.from_clips(clips, **({"layout": LAYOUT, "labels": labels, "fps": 10} | more))

    return make


@pytest.fixture(scope="session")
def folder(classifier, tmp_path_factory):
    """The classifier's folder."""
    path = tmp_path_factory.mktemp("classifier")
    classifier.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def onnx_file(folder, tmp_path_factory):
    """The classifier as ONNX, written by the command."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    from fastamr.cli import main

    path = tmp_path_factory.mktemp("onnx") / "classifier.onnx"
    assert main(["export", str(folder), "--onnx", str(path)]) == 0
    return path
