"""A flipped bit in data, a model or a checkpoint is found, and the tensor named; old files load as they are."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fastamr import checksums
from fastamr.commands.data import check as check_command
from fastamr.data import PackedSkeletons, load
from fastamr.data.joining import open_sets
from fastamr.data.packed import file as packed_file
from fastamr.models import AMRModel, load_pretrained
from fastamr.training.checkpoint import load_checkpoint, save_checkpoint

# What a checkpoint says beside its tensors, as far as it is looked at.
STATE: dict[str, Any] = {"update": 3, "seconds": 1.0, "config": {}, "data": "", "scaler": {}}
SEEDS = {"seed": torch.arange(2), "rng.cpu": torch.zeros(4, dtype=torch.uint8)}


def header_of(path: Path) -> tuple[dict[str, Any], int]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), 8 + length


def flips(path: Path, copy: Path) -> Iterator[tuple[str, Path]]:
    """One file for each tensor, in which one bit of it is flipped."""
    header, begin = header_of(path)
    for name, about in header.items():
        if name == "__metadata__":
            continue
        first, last = about["data_offsets"]
        if last > first:
            content = bytearray(path.read_bytes())
            content[begin + (first + last) // 2] ^= 1 << 6
            copy.write_bytes(content)
            yield name, copy


def data() -> PackedSkeletons:
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(9, 2, 15, 3, generator=generator).numpy() for _ in range(5)]
    return PackedSkeletons.from_clips(
        clips,
        layout="sbu15",
        labels=[0, 1, 2, 0, 1],
        columns={"subject": [1, 2, 3, 4, 5]},
        valid=[torch.rand(9, 2, 15, generator=generator).numpy() > 0.2 for _ in range(5)],
    )


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    data().save(tmp_path / "data.safetensors")
    return tmp_path / "data.safetensors"


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files are large ones, which are mapped."""
    monkeypatch.setattr(packed_file, "COPIED", 0)


def test_a_flipped_bit_in_data_is_found_when_it_is_loaded(packed: Path, tmp_path: Path) -> None:
    names = []
    for name, path in flips(packed, tmp_path / "flipped.safetensors"):
        names.append(name)
        with pytest.raises(ValueError, match=f"flipped.safetensors is damaged: tensor {name!r} differs"):
            load(path)
    assert {"coords", "valid", "offsets", "labels", "names", "fps", "column.subject"} <= set(names)


@pytest.mark.usefixtures("mapped")
def test_a_flipped_bit_in_mapped_data_is_found_when_it_is_asked_for(packed: Path, tmp_path: Path) -> None:
    load(packed).verify()
    for name, path in flips(packed, tmp_path / "flipped.safetensors"):
        match = f"flipped.safetensors is damaged: tensor {name!r} differs"
        if name not in ("coords", "valid"):
            with pytest.raises(ValueError, match=match):
                load(path)
            continue
        opened = load(path)
        with pytest.raises(ValueError, match=match):
            opened.verify()
        with pytest.raises(ValueError, match=match):
            check_command.run([str(path)])
        with pytest.raises(ValueError, match=match):
            open_sets([str(path)])


def test_a_flipped_bit_in_a_model_and_a_checkpoint_is_found(tmp_path: Path) -> None:
    model = AMRModel(layout="sbu15", frames=16, width=32, depth=1, heads=2, decoder_width=32, decoder_depth=1,
                decoder_heads=2, target_patches=2, guidance_windows=(4,))  # fmt: skip
    model.save_pretrained(tmp_path)
    load_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    sound = tmp_path / "sound"
    weights.rename(sound)
    count = 0
    for name, _ in flips(sound, weights):
        count += 1
        with pytest.raises(ValueError, match=f"is damaged: tensor {name!r} differs"):
            load_pretrained(tmp_path)
    assert count == len(model.state_dict())
    tensors = {
        "model.a": torch.randn(3, 4),
        "b": torch.randn(5).bfloat16(),
        "n": torch.tensor(7),
        "e": torch.empty(0),
        **SEEDS,
    }
    save_checkpoint(tmp_path, tensors, STATE)
    state = tmp_path / "state.safetensors"
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.tensors.keys() == tensors.keys()
    state.rename(sound)
    for name, _ in flips(sound, state):
        with pytest.raises(ValueError, match=f"is damaged: tensor {name!r} differs"):
            load_checkpoint(tmp_path)
    state.write_bytes(sound.read_bytes().replace(b'\\"update\\": 3', b'\\"update\\": 1'))
    with pytest.raises(ValueError, match="is damaged: its header differs"):
        load_checkpoint(tmp_path)


def test_another_type_or_shape_in_the_header_is_found(packed: Path) -> None:
    content = packed.read_bytes()
    packed.write_bytes(content.replace(b'"dtype":"I64","shape":[5]', b'"dtype":"F64","shape":[5]'))
    assert packed.read_bytes() != content
    with pytest.raises(ValueError, match="is damaged"):
        load(packed)


@pytest.mark.parametrize("sums", ["[]", "{", '{"": 3}'])
def test_checksums_that_are_none(packed: Path, sums: str) -> None:
    tensors = safetensors.torch.load_file(packed)
    metadata = header_of(packed)[0]["__metadata__"]
    safetensors.torch.save_file(tensors, packed, metadata | {"checksums": sums})
    with pytest.raises(ValueError, match="is damaged: its header differs"):
        load(packed)


def test_files_without_checksums_load(packed: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(packed)
    metadata = header_of(packed)[0]["__metadata__"]
    metadata.pop("checksums")
    safetensors.torch.save_file(tensors, packed, metadata)
    opened = load(packed)
    opened.verify()
    assert opened.fingerprint() == data().fingerprint()
    state = safetensors.torch.load_file(packed) | SEEDS
    safetensors.torch.save_file(
        state, tmp_path / "state.safetensors", {"format": "fastamr-state-1", "state": json.dumps(STATE)}
    )
    assert load_checkpoint(tmp_path) is not None


@pytest.mark.parametrize("write", ["at once", "in pieces"])
def test_both_writers_leave_the_same_checksums(tmp_path: Path, write: str) -> None:
    whole, path = data(), tmp_path / "data.safetensors"
    whole.save(path)
    expected = json.loads(header_of(path)[0]["__metadata__"]["checksums"])
    if write == "in pieces":
        import dataclasses

        large = {name: getattr(whole, name).to("meta") for name in ("coords", "valid")}
        shape = dataclasses.replace(whole, **large)
        parts = [whole.select(range(2)), whole.select(range(2, 5))]
        packed_file.write_packed_pieces(shape, path, lambda: parts)
    assert json.loads(header_of(path)[0]["__metadata__"]["checksums"]) == expected
    with path.open("rb") as file:
        assert checksums.verify_file(file, path)
    assert load(path).fingerprint() == whole.fingerprint()


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = {f"name {place}": 'é \x01\x7f\b\n"\\ \u2028 \U0001f600' for place in range(5)}
    tensors, path = {"b": torch.arange(3), "a": torch.ones(2)}, tmp_path / "a.safetensors"
    found = set()
    for turn in range(8):
        checksums.save_file(tensors, path, dict(sorted(texts.items(), reverse=turn % 2 == 1)))
        found.add(path.read_bytes())
    assert len(found) == 1
    read, metadata = checksums.load_file(path)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert {name: metadata[name] for name in texts} == texts


def test_a_file_cut_short_while_it_is_verified(packed: Path) -> None:
    with packed.open("rb") as file:
        packed.write_bytes(packed.read_bytes()[:-40])
        with pytest.raises(ValueError, match="is truncated within tensor"):
            checksums.verify_file(file, packed)
    packed.write_bytes(packed.read_bytes()[:30])
    with packed.open("rb") as file, pytest.raises(ValueError, match="its header cannot be read"):
        checksums.verify_file(file, packed)
