"""The shipped models: their hashes, their size, and the registry that is in the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import fastamr
from fastamr.data import apply_missing, synthetic_actions
from fastamr.evaluation import extract_features, knn_accuracy, labelled_split, random_encoder
from fastamr.features.run_settings import run_steps
from fastamr.models import SkeletonModel
from fastamr.weights import registry, shipped
from fastamr.weights.folder import CARD_FILE, FILES

from .conftest import changed, same_weights, tiny


def test_what_the_package_ships_is_whole_and_small() -> None:
    entries = shipped()
    folders = {path.name for path in registry.HOME.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(entries)
    assert sum(one.bytes for one in entries.values()) <= registry.MOST_BYTES
    for one in entries.values():
        card = (one.verified() / CARD_FILE).read_text(encoding="utf-8")
        assert all(one.sha256[name] in card for name in FILES)
        assert {path.name for path in one.folder.iterdir()} == {*FILES, CARD_FILE}
        fastamr.from_pretrained(one.name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped()))
@pytest.mark.parametrize("layout", ["kinect20", "coco17"])
def test_what_the_package_ships_knows_motion(name: str, layout: str) -> None:
    """Neighbours of people that no training saw, in layouts that it was not trained on."""
    data = apply_missing(synthetic_actions(300, seed=77), [f"convert:layout={layout}"])
    model = fastamr.from_pretrained(name)
    train, test = labelled_split(data, "official")

    def neighbours(encoder: SkeletonModel) -> float:
        found = extract_features(encoder, apply_missing(data, model.preprocess), pooling="regions")
        return knn_accuracy(found[train], data.labels[train], found[test], data.labels[test])

    trained, untrained = neighbours(model), neighbours(random_encoder(model, 0))
    assert trained > untrained + 5, (trained, untrained)


def test_a_shipped_model_is_the_one_that_was_saved(ships: Callable[..., Path]) -> None:
    model = tiny()
    ships("body-small", model)
    again = fastamr.from_pretrained("body-small")
    assert same_weights(again, model)
    assert (again.preprocess, again.body_size) == (["center"], 0.5)
    assert run_steps("body-small") == ["center"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_one_flipped_bit_is_refused(body_small: Path, file: str, place: float) -> None:
    content = bytearray((body_small / file).read_bytes())
    content[round(place * (len(content) - 1))] ^= 1
    (body_small / file).write_bytes(content)
    with pytest.raises(
        ValueError, match=r"is not the file that was shipped: its SHA-256 is .*install fastamr again"
    ):
        fastamr.from_pretrained("body-small")


def test_files_of_another_model_are_refused(body_small: Path) -> None:
    tiny(frames=24).save_pretrained(body_small)
    with pytest.raises(ValueError, match="is not the file that was shipped"):
        fastamr.from_pretrained("body-small")


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(body_small: Path, file: str) -> None:
    (body_small / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} of the shipped model 'body-small' is missing"):
        fastamr.from_pretrained("body-small")


@pytest.mark.parametrize(
    "name", ["..", "../x", "a/b", "/etc", "", "a..b", "A", "a\nb", ".hidden", "a b", "-"]
)
def test_a_name_that_may_lead_elsewhere_is_refused(body_small: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be small letters"):
        registry.register_weights(name, summary="", licence="", terms="")
    path = registry.HOME / "registry.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: content["body-small"]}))
    with pytest.raises(ValueError, match="is damaged"):
        shipped()


@pytest.mark.parametrize("spoil", [
    lambda entry: entry.pop("terms"),
    lambda entry: entry.update(licence=1),
    lambda entry: entry["sha256"].pop("model.safetensors"),
    lambda entry: entry["sha256"].update({"config.json": "x" * 64}),
    lambda entry: entry.update(sha256=[]),
])  # fmt: skip
def test_a_damaged_registry_says_so(body_small: Path, spoil: Callable[[dict], object]) -> None:
    path = registry.HOME / "registry.json"
    content = json.loads(path.read_text())
    spoil(content["body-small"])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"registry.json is damaged .*install fastamr again"):
        shipped()


def test_weights_that_are_too_large_are_not_registered(
    body_small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST_BYTES", 1000)
    before = (registry.HOME / "registry.json").read_text()
    with pytest.raises(ValueError, match="at most 1,000 are allowed"):
        registry.register_weights("body-small", summary="", licence="", terms="")
    assert (registry.HOME / "registry.json").read_text() == before


def test_registering_again_takes_the_new_hashes(body_small: Path) -> None:
    changed(body_small, mask_ratio=0.5)
    registry.register_weights("body-small", summary="another", licence="MIT", terms="none")
    assert fastamr.from_pretrained("body-small").config.mask_ratio == 0.5
    assert shipped()["body-small"].summary == "another"


def test_a_model_without_a_card_is_not_registered(body_small: Path) -> None:
    (body_small / CARD_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"MODEL_CARD.md is missing"):
        registry.register_weights("body-small", summary="", licence="", terms="")
