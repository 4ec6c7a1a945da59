"""Numbers that wrap in a packed file; a file that is changed, cut short or removed while it is mapped."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastamr.data import PackedSkeletons, load
from fastamr.data.packed import file as packed_file
from fastamr.data.packed.checks import LAST_FRAME
from fastamr.data.packed.mapped import mapped_file
from fastamr.training import PretrainConfig, pretrain
from fastamr.training.keeper import Keeper

LARGEST = 2**63 - 1


def make(clips: int = 4) -> PackedSkeletons:
    return PackedSkeletons.from_clips(
        [torch.randn(10, 1, 15, 3).numpy() for _ in range(clips)], layout="sbu15"
    )


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("offsets", [0, LARGEST, -LARGEST - 1, -1, 40]),
        ("offsets", [0, LARGEST, -LARGEST, 30, 40]),
        ("offsets", [0, -1, 20, 30, 40]),
        ("offsets", [0, 2**32, 20, 30, 40]),
        ("body_clip", [0, LARGEST, -LARGEST - 1, 3]),
        ("body_clip", [0, 2**32 + 1, 2, 3]),
        ("body_start", [0, LARGEST, 0, 0]),
        ("body_start", [0, LAST_FRAME + 1, 0, 0]),
        ("body_start", [0, -LARGEST - 1, 0, 0]),
        ("labels", [0, LARGEST, 0, 0]),
        ("labels", [0, 2**31, 0, 0]),
    ],
)
def test_numbers_that_wrap_are_refused(tmp_path: Path, field: str, values: list[int]) -> None:
    data, path = make(), tmp_path / "wrapped.safetensors"
    setattr(data, field, torch.tensor(values))
    packed_file.write_packed(data, path)
    with pytest.raises(ValueError, match=f"wrapped.safetensors is damaged: {field}"):
        load(path)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is large enough to be mapped."""
    monkeypatch.setattr(packed_file, "COPIED", 0)
    make().save(tmp_path / "data.safetensors")
    return tmp_path / "data.safetensors"


def test_a_small_file_lies_in_memory(tmp_path: Path) -> None:
    data, path = make(), tmp_path / "data.safetensors"
    data.save(path)
    opened = load(path)
    assert mapped_file(opened.coords) is None
    os.truncate(path, 100)
    assert opened.fingerprint() == data.fingerprint()
    with pytest.raises(ValueError, match=r"data.safetensors is not a packed data file, or is truncated"):
        load(path)


def test_what_is_looked_at_all_the_time_is_copied(packed: Path) -> None:
    opened = load(packed)
    expected = [opened.offsets.clone(), opened.labels.clone(), opened.fps.clone(), list(opened.names)]
    os.truncate(packed, 100)
    for found, value in zip((opened.offsets, opened.labels, opened.fps), expected, strict=False):
        torch.testing.assert_close(found, value, equal_nan=True)
    assert opened.names == expected[-1]


def test_a_file_that_was_cut_short_is_noticed(packed: Path) -> None:
    file = mapped_file(load(packed).coords)
    assert file is not None
    file.check()
    size = packed.stat().st_size
    os.truncate(packed, 100)
    for look in (file.check, file.changed):
        with pytest.raises(
            OSError, match=rf"data.safetensors was cut from {size} to 100 bytes while it was in use"
        ):
            look()
    with pytest.raises(ValueError, match="is truncated"):
        file.verify()


def test_a_change_in_place_is_told_once(packed: Path) -> None:
    opened = load(packed)
    file = mapped_file(opened.coords)
    assert file is not None
    assert not file.changed()
    with packed.open("r+b") as changing:
        changing.seek(-1, os.SEEK_END)
        changing.write(b"\x07")
    os.utime(packed, ns=(0, 12345))
    assert [file.changed(), file.changed()] == [True, False]


def test_a_file_that_was_removed_or_replaced_stays_readable(packed: Path) -> None:
    data = load(packed)
    before = data.fingerprint()
    file = mapped_file(data.coords)
    assert file is not None
    make(3).save(packed)
    file.check()
    data.verify()
    packed.unlink()
    data.verify()
    assert not file.changed()
    assert data.fingerprint() == before


def test_the_file_is_held_as_long_as_the_data(packed: Path) -> None:
    def handles() -> int:
        return len(os.listdir("/proc/self/fd"))

    load(packed)
    before = handles()
    for _ in range(5):
        data = load(packed)
        copies = [copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data)), data.to("cpu")]
        assert mapped_file(copies[2].coords) is None
    del data, copies
    assert handles() == before


@pytest.fixture
def run_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(packed_file, "COPIED", 0)
    make(40).save(tmp_path / "data.safetensors")
    size = {"frames": 16, "width": 32, "depth": 1, "heads": 2, "decoder_width": 32, "decoder_depth": 1,
            "decoder_heads": 2, "target_patches": 2, "guidance_windows": [4]}  # fmt: skip
    return PretrainConfig.from_dict(
        {
            "data": [str(tmp_path / "data.safetensors")],
            "out": str(tmp_path / "run"),
            "architecture": size,
            "min_frames": 8,
            "batch_size": 8,
            "updates": 6,
            "checkpoint_every": 0.2,
            "train_on": "all",
            "preprocess": [],
            "tensorboard": False,
            "progress": False,
            "device": "cpu",
        }
    )


@pytest.mark.parametrize("fetched", [False, True])
def test_training_stops_where_the_file_is_cut_short(
    run_config: Any, monkeypatch: pytest.MonkeyPatch, fetched: bool
) -> None:
    if fetched:
        run_config.data_budget = 0.0
    save = Keeper.save

    def cut(self: Any) -> None:
        save(self)
        os.truncate(run_config.data[0], 4096)

    monkeypatch.setattr(Keeper, "save", cut)
    with pytest.raises(OSError, match=r"data.safetensors was cut from \d+ to 4096 bytes while it was in use"):
        pretrain(run_config, quiet=True)
    assert (Path(run_config.out) / "state.safetensors").is_file()


def test_training_says_that_the_file_was_changed(
    run_config: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    save = Keeper.save

    def change(self: Any) -> None:
        save(self)
        if self.run.update < 3:
            os.utime(run_config.data[0], ns=(0, self.run.update))

    monkeypatch.setattr(Keeper, "save", change)
    pretrain(run_config)
    printed = "".join(capsys.readouterr())
    assert "data.safetensors was written to while the run trained on it" in " ".join(printed.split())
    assert "was written to" in (Path(run_config.out) / "metrics.jsonl").read_text()


@pytest.mark.extension
@pytest.mark.parametrize("named", [True, False])
def test_a_bus_error_names_the_file(tmp_path: Path, named: bool) -> None:
    """Cut short between the look at its size and the reading; a file of somebody else stays a bus error."""
    path = tmp_path / "data.safetensors"
    make(400).save(path)
    code = (
        "import mmap, os, sys\nfrom fastamr.data.packed import file\nfile.COPIED = 0\nfrom fastamr.data import load\n"
        f"data = load({str(path)!r})\n"
        f"os.truncate({str(path)!r}, 4096 if {named} else {path.stat().st_size})\n"
        "if not " + repr(named) + ":\n"
        "    open('other', 'wb').write(bytes(9000))\n"
        "    other = mmap.mmap(os.open('other', os.O_RDWR), 9000)\n    os.truncate('other', 0)\n    other[8500]\n"
        "print(float(data.coords.sum()))\n"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if named:
        assert run.returncode == 1
        assert run.stderr == (
            f"error: {path} was cut short while it was in use (bus error): put it back as it was; training goes on "
            "from its last checkpoint with --resume auto\n"
        )
    else:
        assert run.returncode == -7
        assert "cut short" not in run.stderr
