"""Every loader of the library with a sound file, the ways to spoil it, and the call that reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastamr.data import read
from fastamr.data.prepare import prepare
from fastamr.export.description import read_text
from fastamr.features.run_settings import run_config
from fastamr.models import ActionClassifier, MAMPModel
from fastamr.models.registry import load_pretrained
from fastamr.skeleton import get_layout
from fastamr.training.checkpoint import load_checkpoint, save_checkpoint
from fastamr.training.config import PretrainConfig
from fastamr.training.metrics.metrics import _lines_until

from . import mutate, seeds

_MUTATORS = {
    **dict.fromkeys((".csv", ".bvh", ".skeleton", ".txt", ".yaml"), mutate.TEXT),
    **dict.fromkeys((".mat", ".c3d"), mutate.BINARY),
    ".json": mutate.JSON,
    ".npy": mutate.ARRAY,
    ".npz": mutate.NPZ,
    ".zip": mutate.ZIP,
    ".pkl": mutate.PICKLE,
    ".safetensors": mutate.TENSORS,
}


@dataclass(frozen=True)
class Target:
    """A loader: the name of the file, its sound content, how it is spoiled and read, the files beside it, its errors.

    ``is_named``: whether errors name the file; those about options name the option.
    """

    name: str
    file: str
    content: bytes
    mutators: tuple[mutate.Mutator, ...]
    load: Callable[[Path], Any]
    beside: tuple[tuple[str, bytes], ...] = ()
    errors: tuple[type[Exception], ...] = (ValueError, OSError)
    is_named: bool = True


def targets() -> list[Target]:
    """Return all loaders."""
    found = []
    for name, content in seeds.files().items():
        load, beside = _loader(name)
        found.append(Target(name, name, content, _MUTATORS[Path(name).suffix], load, beside))
    return [*found, *_models(), *_run()]


def _loader(name: str) -> tuple[Callable[[Path], Any], tuple[tuple[str, bytes], ...]]:
    if name == "markers.yaml":
        sound = seeds.files().get("walk.c3d")
        if sound is None:
            return _read_layout, ()
        return (lambda path: _read(path.parent / "walk.c3d", markers=path)), (("walk.c3d", sound),)
    if name == "walk.c3d":
        beside = (("markers.yaml", seeds.MARKERS.encode()),)
        return (lambda path: _read(path, markers=path.parent / "markers.yaml")), beside
    if name.startswith("layout"):
        return _read_layout, ()
    if name == "ntu.zip":
        return _prepare, ()
    return _read, ()


def _read(path: Path, **options: Any) -> None:
    data = read(path, say=lambda line: None, **options)
    str(data.summary())


def _read_layout(path: Path) -> None:
    get_layout(str(path))


def _prepare(path: Path) -> None:
    prepare("ntu60", path, path.parent / "out.safetensors", workers=1, progress=False)


def _models() -> list[Target]:
    found = []
    models = seeds.model_files()
    for name, load in (("encoder", load_pretrained), ("classifier", ActionClassifier.from_pretrained)):
        parts = models[name]
        for file, mutators in (("config.json", mutate.JSON), ("model.safetensors", mutate.TENSORS)):
            beside = tuple((other, content) for other, content in parts.items() if other != file)
            found.append(Target(f"{name} {file}", file, parts[file], mutators, _of_folder(load), beside))
    sound = seeds.released()
    weights = mutate.BINARY + mutate.ZIP
    found.append(
        Target(
            "released",
            "released.pth",
            sound,
            weights,
            lambda path: MAMPModel.from_released(path, layout="sbu15"),
        )
    )
    text = seeds.description()
    found.append(
        Target(
            "description",
            "model.txt",
            text,
            mutate.JSON,
            lambda path: read_text(path.read_text("utf-8", "replace"), path),
        )
    )
    return found


def _run() -> list[Target]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        scalars = {"update": 3, "seconds": 1.0, "scaler": {}, "config": {"model": "mamp"}, "data": "0" * 32}
        tensors = {
            "seed": torch.zeros(2, dtype=torch.int64),
            "rng.cpu": torch.get_rng_state(),
            "model.x": torch.ones(3),
        }
        save_checkpoint(folder, tensors, scalars)
        state = next(Path(folder).iterdir()).read_bytes()
    lines = "".join(
        json.dumps({"kind": "train", "update": update, "loss": 0.5}) + "\n" for update in range(4)
    ).encode()
    config = seeds.config()
    return [
        Target("state", "state.safetensors", state, mutate.TENSORS, _of_folder(load_checkpoint)),
        Target("metrics", "metrics.jsonl", lines, mutate.TEXT, lambda path: _lines_until(path, 3)),
        Target(
            "config",
            "config.yaml",
            config,
            mutate.TEXT,
            lambda path: PretrainConfig.load(path).model_config(),
            errors=(ValueError, OSError, TypeError),
            is_named=False,
        ),
        Target("run config", "config.yaml", config, mutate.TEXT, _of_folder(run_config)),
    ]


def _of_folder(load: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return lambda path: load(path.parent)
