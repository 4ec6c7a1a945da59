"""Small files that train together, and runs of tiny models on them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastamr.training import PretrainConfig, pretrain

TINY = {
    "frames": 8,
    "width": 8,
    "depth": 1,
    "heads": 2,
    "decoder_width": 8,
    "decoder_depth": 1,
    "decoder_heads": 2,
}
OWN = {"amr": {"target_patches": 1}, "skeleton_mae": {}, "mamp": {}, "gfp": {"levels": (1, 2)}}
RUN = {
    "updates": 10, "batch_size": 8, "min_frames": 4, "log_every": 4, "progress": False, "tensorboard": False,
    "device": "cpu",
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, make_skeletons: Callable[..., Any]) -> list[str]:
    """Three sets of 20, 10 and 40 clips: ``a``, and ``b`` with missing joints and two bodies, and ``c``; own names."""
    sources = []
    for name, clips, bodies, valid in (("a", 20, 1, False), ("b", 10, 2, True), ("c", 40, 1, False)):
        data = make_skeletons(clips, bodies=bodies, seed=len(sources), with_valid=valid)
        data = dataclasses.replace(data, names=[f"{name}{place}" for place in range(clips)])
        sources.append(str(tmp_path / f"{name}.safetensors"))
        data.save(sources[-1])
    return sources


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., PretrainConfig]:
    """Makes a configuration: ``configure("run", files, mixture=0.5, ...)``."""

    def make(name: str, data: list[str], *, model: str = "amr", **options: Any) -> PretrainConfig:
        architecture = TINY | OWN.get(model, {}) | options.pop("architecture", {})
        values = {**RUN, "data": data, "out": str(tmp_path / name), "model": model, **options}
        return PretrainConfig(architecture=architecture, **values)

    return make


@pytest.fixture
def train(configure: Callable[..., PretrainConfig]) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """Makes a run, as ``configure`` does a configuration, and returns its records by kind."""

    def run(*arguments: Any, **options: Any) -> dict[str, list[dict[str, Any]]]:
        return read(pretrain(configure(*arguments, **options), quiet=True))

    return run


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["kind"], []).append(record)
    return found
