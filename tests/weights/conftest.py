"""A shipped encoder and classifier in a registry of the test's own, and a cache as the Hugging Face Hub lays it out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fastamr.models import ActionClassifier, SkeletonModel, build_model
from fastamr.weights import hub, registry, sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tiny(frames: int = 16, **options: object) -> SkeletonModel:
    """An encoder of ntu25 with weights that are not those of another call."""
    small = {"width": 16, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}
    amr = {"target_patches": 2, "guidance_windows": [4, 8], "stride": 4}
    model = build_model("amr", frames=frames, **small, **amr, **options)
    model.preprocess, model.body_size = ["center"], 0.5
    return model


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    hub.download.cache_clear()
    sources._tell_once.cache_clear()
    yield
    hub.download.cache_clear()


@pytest.fixture
def ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Add a model to a registry of its own, and return its folder."""
    home = tmp_path / "package"
    home.mkdir()
    (home / "registry.json").write_text("{}")
    monkeypatch.setattr(registry, "HOME", home)

    def add(name: str, model: SkeletonModel | ActionClassifier) -> Path:
        model.save_pretrained(home / name)
        (home / name / "MODEL_CARD.md").write_text(f"# {name}\n\nIts card.\n")
        registry.register_weights(
            name, summary="a tiny model", licence="Apache-2.0", terms="generated motion"
        )
        return home / name

    return add


@pytest.fixture
def body_small(ships: Callable[..., Path]) -> Path:
    """The folder of a shipped encoder called body-small."""
    torch.manual_seed(0)
    return ships("body-small", tiny())


def laid_out(
    cache: Path, repository: str, folder: Path, *, revision: str = "main", commit: str = COMMIT
) -> Path:
    """Lay a model out as huggingface_hub does: blobs by hash, a ref, and a snapshot of links; return the snapshot."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    for part in (home / "blobs", home / "refs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    (home / "refs" / revision).write_text(commit)
    for file in folder.iterdir():
        blob = home / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


def same_weights(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    first, second = one.state_dict(), two.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def changed(folder: Path, **values: object) -> None:
    """Change the configuration of a model's folder."""
    description = json.loads((folder / "config.json").read_text())
    description["config"] |= values
    (folder / "config.json").write_text(json.dumps(description))
