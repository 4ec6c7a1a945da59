"""Packed skeletons as files: what comes back, what fails, and fingerprints."""

from __future__ import annotations

import dataclasses
import json
import pickle
import resource
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastamr.data import PackedSkeletons, Split
from fastamr.data.packed import file as packed_file
from fastamr.skeleton import get_layout

from .making import V, assert_same, make


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "data.safetensors"

    def test_everything_comes_back(self, path: Path) -> None:
        data = dataclasses.replace(
            make(fps=None), steps=({"name": "center", "joint": "root"},), dropped={"gone": "no frames"}
        )
        data.save(path)
        assert_same(PackedSkeletons.load(path), data)
        assert PackedSkeletons.load(path).fingerprint() == data.fingerprint()

    def test_float16_and_missing_joints_come_back(self, path: Path) -> None:
        data = make()
        seen = torch.rand(14, V) < 0.5
        data = dataclasses.replace(data, coords=data.coords.clamp(-1, 1).half(), valid=seen)
        data.save(path)
        assert_same(PackedSkeletons.load(path), data)

    def test_splits_and_columns_that_share_a_tensor_come_back(self, path: Path) -> None:
        data = make()
        half, view = data.splits["official"], data.columns["view"]
        data = dataclasses.replace(
            data, splits={"one": half, "two": half}, columns={"view": view, "camera": view}
        )
        data.save(path)
        assert_same(PackedSkeletons.load(path), data)

    def test_a_set_of_one_clip_without_a_name(self, path: Path) -> None:
        data = PackedSkeletons.from_clips([np.ones((1, 1, V, 2))], layout="coco17", names=[""])
        data.save(path)
        assert_same(PackedSkeletons.load(path), data)

    def test_names_stay_out_of_the_header(self, path: Path) -> None:
        count = 60_000
        data = PackedSkeletons(
            coords=torch.ones(count, V, 2),
            offsets=torch.arange(count + 1),
            body_clip=torch.arange(count),
            body_start=torch.zeros(count, dtype=torch.int64),
            labels=torch.zeros(count, dtype=torch.int64),
            fps=torch.ones(count),
            layout=get_layout("coco17"),
            names=[f"S001C002P003R002A{place:07}" for place in range(count)],
        )
        data.save(path)
        with path.open("rb") as file:
            assert struct.unpack("<Q", file.read(8))[0] < 10_000
        assert PackedSkeletons.load(path).names == data.names

    def test_a_name_with_nul_is_refused(self, path: Path) -> None:
        with pytest.raises(ValueError, match="NUL"):
            make(names=["a", "b\0c", "d", "e"]).save(path)

    def test_writing_into_a_mapped_tensor_leaves_the_file_alone(self, path: Path) -> None:
        data = make()
        data.save(path)
        PackedSkeletons.load(path).coords.zero_()
        assert_same(PackedSkeletons.load(path), data)

    def test_nothing_unsound_is_written(self, path: Path) -> None:
        data = make()
        data.coords[0, 0, 0] = float("inf")
        with pytest.raises(ValueError, match=r"clip 0 \('a'\), frame 0"):
            data.save(path)
        assert not path.exists()

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
            make().save(tmp_path / "no" / "data.safetensors")

    def test_ten_million_frames_open_at_once(self, path: Path) -> None:
        frames, clips = 10_000_000, 100_000
        write_sparse(path, frames, clips)
        PackedSkeletons.from_clips([np.ones((1, 1, V, 2))], layout="coco17").save(path.with_name("warm"))
        PackedSkeletons.load(path.with_name("warm"))
        before, start = resident_bytes(), time.process_time()
        data = PackedSkeletons.load(path)
        seconds = time.process_time() - start
        assert data.num_frames == frames
        assert data.coords[frames - 1].abs().sum() == 0
        assert seconds < 0.5
        assert resident_bytes() - before < 100e6 < data.coords.nbytes


def write_sparse(path: Path, frames: int, clips: int) -> None:
    """Write a packed file by hand whose coordinates are a hole on the disk."""
    small = {
        "offsets": np.linspace(0, frames, clips + 1).astype("<i8"),
        "body_clip": np.arange(clips, dtype="<i8"),
        "body_start": np.zeros(clips, dtype="<i8"),
        "labels": np.zeros(clips, dtype="<i8"),
        "fps": np.ones(clips, dtype="<f4"),
        "names": np.frombuffer("\0".join(map(str, range(clips))).encode().ljust(800_000, b"x"), dtype="u1"),
    }
    kinds = {"<i8": "I64", "<f4": "F32", "|u1": "U8"}
    empty: dict[str, Any] = {
        "columns": [],
        "splits": [],
        "label_names": [],
        "column_names": {},
        "steps": [],
        "dropped": {},
    }
    header = {"layout": get_layout("ntu25").to_dict(), **empty}
    table: dict[str, Any] = {"__metadata__": {"format": packed_file.FORMAT, "header": json.dumps(header)}}
    position = 0
    for name, array in small.items():
        table[name] = {
            "dtype": kinds[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    end = position + frames * 25 * 3 * 2
    table["coords"] = {"dtype": "F16", "shape": [frames, 25, 3], "data_offsets": [position, end]}
    text = json.dumps(table).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    with path.open("wb") as file:
        file.write(
            struct.pack("<Q", len(text)) + text + b"".join(array.tobytes() for array in small.values())
        )
        file.truncate(8 + len(text) + end)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()


class TestFailures:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "data.safetensors"
        make().save(path)
        return path

    def test_a_crash_while_writing_keeps_the_previous_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = path.read_bytes()

        def write_half(tensors: object, target: Path, metadata: object) -> None:
            Path(target).write_bytes(content[:100])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(packed_file, "save_file", write_half)
        with pytest.raises(OSError, match=r"No space left on device.*intact"):
            make(labels=None).save(path)
        assert path.read_bytes() == content
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    def test_a_full_disk_keeps_the_previous_file(self, path: Path, file_size_limit: None) -> None:
        content = path.read_bytes()
        large = PackedSkeletons.from_clips([np.ones((5000, 1, V, 3))], layout="coco17")
        with pytest.raises(OSError, match="intact"):
            large.save(path)
        assert path.read_bytes() == content
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    @pytest.fixture
    def file_size_limit(self) -> Iterator[None]:
        """No file may grow beyond 256 KiB, which fails a write as a full disk does."""
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"no packed data file .*fastamr import"):
            PackedSkeletons.load(tmp_path / "none.safetensors")
        with pytest.raises(FileNotFoundError):
            PackedSkeletons.load(tmp_path)

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.999])
    def test_a_truncated_file(self, path: Path, share: float) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match="not a packed data file, or is truncated"):
            PackedSkeletons.load(path)

    def test_foreign_files(self, path: Path) -> None:
        path.write_bytes(b"joint,x,y\n" * 100)
        with pytest.raises(ValueError, match="not a packed data file"):
            PackedSkeletons.load(path)
        save_file({"weight": torch.ones(3)}, path)
        with pytest.raises(ValueError, match="holds tensors, but no packed data"):
            PackedSkeletons.load(path)
        save_file({"weight": torch.ones(3)}, path, {"format": "fastamr-packed-9", "header": "{}"})
        with pytest.raises(ValueError, match="has format 'fastamr-packed-9', expected 'fastamr-packed-1'"):
            PackedSkeletons.load(path)
        save_file({"weight": torch.ones(3)}, path, {"format": packed_file.FORMAT, "header": "{}"})
        with pytest.raises(ValueError, match=r"damaged header .*coords"):
            PackedSkeletons.load(path)
        save_file({"weight": torch.ones(3)}, path, {"format": packed_file.FORMAT, "header": "{"})
        with pytest.raises(ValueError, match="not a packed data file"):
            PackedSkeletons.load(path)

    def test_parts_that_do_not_fit_name_the_file(self, path: Path) -> None:
        data = make()
        tensors = packed_file._tensors(data) | {"offsets": torch.tensor([0, 5, 8, 11, 12, 13])}
        save_file(tensors, path, {"format": packed_file.FORMAT, "header": packed_file._header(data)})
        with pytest.raises(ValueError, match=r"data.safetensors is damaged: offsets goes from 0 to 13"):
            PackedSkeletons.load(path)

    def test_a_pickle_is_never_run(self, path: Path) -> None:
        trap = path.with_name("trap")
        path.write_bytes(pickle.dumps(_Trap(trap)))
        with pytest.raises(ValueError, match="not a packed data file"):
            PackedSkeletons.load(path)
        assert not trap.exists()


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class TestFingerprint:
    def test_equal_content_has_equal_fingerprints(self) -> None:
        assert make().fingerprint() == make().fingerprint()
        assert len(make().fingerprint()) == 32

    @pytest.mark.parametrize(
        "what", ["coords", "labels", "names", "layout", "steps", "valid", "splits", "start"]
    )
    def test_any_change_shows(self, what: str) -> None:
        data = make()
        coords = data.coords.clone()
        coords[3, 2, 1] += 1e-6
        mask = torch.tensor([True, False, False, False])
        changes: dict[str, dict[str, Any]] = {
            "coords": {"coords": coords},
            "labels": {"labels": torch.tensor([1, 0, 0, 1])},
            "names": {"names": ["a", "b", "c", "x"]},
            "layout": {"layout": dataclasses.replace(data.layout, name="other")},
            "steps": {"steps": ({"name": "center"},)},
            "valid": {"valid": torch.ones(14, V, dtype=torch.bool)},
            "splits": {"splits": {"official": Split(mask, ~mask)}},
            "start": {"body_start": torch.tensor([0, 0, 1, 0, 0])},
        }
        assert dataclasses.replace(data, **changes[what]).fingerprint() != data.fingerprint()
