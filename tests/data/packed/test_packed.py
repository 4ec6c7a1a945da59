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

V = 17


def make(**fields: Any) -> PackedSkeletons:
    """Four clips of 5, 3, 1 and 2 frames with 1, 2, 1 and 1 bodies."""
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(frames, bodies, V, 3)) for frames, bodies in ((5, 1), (3, 2), (1, 1), (2, 1))]
    train = torch.tensor([True, False, True, False])
    defaults: dict[str, Any] = {
        "layout": "coco17",
        "labels": [1, 0, -1, 1],
        "label_names": ["sit", "stand"],
        "fps": 30.0,
        "names": ["a", "b", "é", "d"],
        "columns": {"subject": ["s2", "s1", "s2", "s3"], "view": [1, 2, 3, 1]},
        "splits": {"official": Split(train, ~train)},
    }
    return PackedSkeletons.from_clips(clips, **(defaults | fields))


def assert_same(one: PackedSkeletons, other: PackedSkeletons) -> None:
    for item in dataclasses.fields(PackedSkeletons):
        a: Any = getattr(one, item.name)
        b: Any = getattr(other, item.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            assert torch.equal(a, b) or (a.isnan().all() and b.isnan().all()), item.name
        elif item.name == "columns":
            assert list(a) == list(b)
            assert all(torch.equal(a[name], b[name]) for name in a)
        elif item.name == "splits":
            assert list(a) == list(b)
            assert all(torch.equal(a[n].train, b[n].train) and torch.equal(a[n].test, b[n].test) for n in a)
        else:
            assert a == b, item.name


class TestFromClips:
    def test_bodies_lie_one_after_another(self) -> None:
        rng = np.random.default_rng(1)
        clips = [rng.normal(size=(5, 1, V, 3)), rng.normal(size=(3, 2, V, 3)).astype(np.float16)]
        data = PackedSkeletons.from_clips(clips, layout="coco17")
        assert data.offsets.tolist() == [0, 5, 8, 11]
        assert data.body_clip.tolist() == [0, 1, 1]
        assert data.body_start.tolist() == [0, 0, 0]
        assert data.coords.dtype == torch.float32
        assert np.array_equal(data.coords[5:8].numpy(), clips[1][:, 0].astype(np.float32))
        assert np.array_equal(data.coords[8:11].numpy(), clips[1][:, 1].astype(np.float32))
        assert (data.num_clips, data.num_bodies, data.num_frames) == (2, 3, 11)
        assert data.names == ["clip0", "clip1"]
        assert data.labels.tolist() == [-1, -1]
        assert data.fps.isnan().all()
        assert data.valid is None
        assert data.device.type == "cpu"
        assert "2 clips, 3 bodies, 11 frames of (17, 3), float32" in repr(data)

    def test_text_columns_become_codes(self) -> None:
        data = make()
        assert data.columns["subject"].tolist() == [1, 0, 1, 2]
        assert data.column_names["subject"] == ("s1", "s2", "s3")
        assert data.columns["view"].tolist() == [1, 2, 3, 1]
        assert data.columns["view"].dtype == torch.int64

    def test_clips_without_frames_or_bodies_are_dropped_and_listed(self) -> None:
        clips = [np.zeros((0, 1, V, 3)), np.ones((4, 1, V, 3)), np.zeros((3, 2, V, 3)), np.ones((1, 1, V, 3))]
        mask = torch.tensor([True, True, False, False])
        data = PackedSkeletons.from_clips(
            clips,
            layout="coco17",
            labels=[0, 1, 2, 3],
            fps=[1, 2, 3, 4],
            columns={"view": [5, 6, 7, 8]},
            splits={"official": Split(mask, ~mask)},
        )
        assert data.dropped == {"clip0": "no frames", "clip2": "no body"}
        assert data.names == ["clip1", "clip3"]
        assert data.labels.tolist() == [1, 3]
        assert data.fps.tolist() == [2, 4]
        assert data.columns["view"].tolist() == [6, 8]
        assert data.splits["official"].test.tolist() == [False, True]
        summary = data.summary()
        assert summary["dropped_clips"] == {"clip0": "no frames", "clip2": "no body"}
        assert summary["single_frame_clips"] == 1
        assert "dropped clips" in str(summary)
        assert "clip0: no frames" in str(summary)

    def test_empty_bodies_are_dropped_on_demand(self) -> None:
        clip = np.zeros((4, 3, V, 3))
        clip[2, 1, 5, 0] = 1.0
        assert PackedSkeletons.from_clips([clip], layout="coco17").num_bodies == 1
        kept = PackedSkeletons.from_clips([clip], layout="coco17", drop_empty_bodies=False)
        assert kept.num_bodies == 3

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite_name_clip_frame_body_and_joint(self, bad: float) -> None:
        clips = [np.ones((4, 2, V, 3)), np.ones((6, 2, V, 3))]
        clips[1][5, 1, 7, 2] = bad
        with pytest.raises(ValueError, match=r"clip 1 \('clip1'\), frame 5, body 1, joint 7: .* not finite"):
            PackedSkeletons.from_clips(clips, layout="coco17")

    def test_missing_joints_are_zero_and_may_be_nan_before(self) -> None:
        clip, seen = np.ones((3, 2, V, 2)), np.ones((3, 2, V), dtype=bool)
        clip[1, 1, 4], seen[1, 1, 4] = np.nan, False
        data = PackedSkeletons.from_clips([clip], layout="coco17", valid=[seen])
        assert data.valid is not None
        assert data.valid.shape == (6, V)
        assert not data.valid[4, 4]
        assert int((~data.valid).sum()) == 1
        assert data.coords[4, 4].tolist() == [0, 0]
        assert data.summary()["missing_joints"] == 1

    @pytest.mark.parametrize(
        ("clips", "message"),
        [
            ([], "clips is empty"),
            ([np.ones((3, V, 3))], r"clip 0 \('clip0'\) has shape \(3, 17, 3\).*clip\[:, None\]"),
            ([np.ones((3, 1, 25, 3))], "25 joints, but layout 'coco17' has 17"),
            ([np.ones((3, 1, V, 4))], "4 channels, expected 2 or 3"),
            (
                [np.ones((3, 1, V, 3)), np.ones((3, 1, V, 2))],
                "clip 1 .* has 2 channels, the clips before it have 3",
            ),
            ([np.zeros((3, 1, V, 3)), np.ones((0, 1, V, 3))], "none of the 2 clips has a frame with a body"),
        ],
    )
    def test_bad_clips(self, clips: list[np.ndarray], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            PackedSkeletons.from_clips(clips, layout="coco17")

    def test_other_bad_arguments(self) -> None:
        with pytest.raises(TypeError, match=r"clip 0 .* dtype .*expected real numbers"):
            PackedSkeletons.from_clips([np.ones((3, 1, V, 3), dtype=complex)], layout="coco17")
        with pytest.raises(ValueError, match=r"splits\['x'\] has masks of 3 and 4 for 4 clips"):
            make(splits={"x": Split(torch.ones(3) > 0, torch.ones(4) < 0)})
        with pytest.raises(ValueError, match="labels has 3 entries for 4 clips"):
            make(labels=[0, 1, 2])
        with pytest.raises(ValueError, match="view has 1 entries for 4 clips"):
            make(columns={"view": [1]})
        with pytest.raises(TypeError, match=r"columns\['view'\] has dtype object"):
            make(columns={"view": [None] * 4})
        with pytest.raises(ValueError, match="did you mean 'coco17'"):
            make(layout="coco18")
        with pytest.raises(ValueError, match=r"valid of clip 0 .* expected bool of shape"):
            make(valid=[np.ones((5, 1, V))] * 4)
        with pytest.raises(ValueError, match="labels holds 2, but label_names has 2 classes"):
            make(labels=[0, 1, 2, 0])
        with pytest.raises(ValueError, match="labels holds -2"):
            make(labels=[0, 1, -2, 0])


class TestStructure:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {"offsets": torch.tensor([0, 5, 8, 11, 12, 13])},
                "offsets goes from 0 to 13, expected 0 to the 14 frames",
            ),
            ({"offsets": torch.tensor([1, 5, 8, 11, 12, 14])}, "offsets goes from 1"),
            ({"offsets": torch.tensor([0, 5, 5, 11, 12, 14])}, "body 1 has 0 frames"),
            ({"offsets": torch.tensor([0, 8, 5, 11, 12, 14])}, "body 1 has -3 frames"),
            ({"offsets": torch.tensor([0, 5, 14])}, "offsets has 3 .* for 5 bodies"),
            ({"body_clip": torch.tensor([0, 1, 0, 2, 3])}, "bodies of a clip are neighbours"),
            ({"body_clip": torch.tensor([0, 1, 1, 1, 3])}, "every clip has one"),
            ({"body_clip": torch.tensor([0, 0, 1, 2, 2])}, "goes from 0 to 2, expected 0 to 3"),
            ({"body_start": torch.tensor([0, 0, -1, 0, 0])}, "body_start holds -1"),
            ({"coords": torch.zeros(14, V, 4)}, r"coords has shape \(14, 17, 4\)"),
            ({"coords": torch.zeros(14, V, 3, dtype=torch.float64)}, r"coords has dtype torch.float64"),
            ({"coords": torch.zeros(14, 25, 3)}, r"expected \(frames, 17, 2 or 3\)"),
            ({"labels": torch.zeros(4)}, "labels has dtype torch.float32, expected torch.int64"),
            ({"fps": torch.ones(3)}, "fps has shape"),
            ({"names": ["a"]}, "names has 1 entries for 4 clips"),
            ({"columns": {"view": torch.zeros(3)}}, r"columns\['view'\] has shape \(3,\)"),
            ({"valid": torch.ones(14, V)}, "valid is torch.float32"),
            ({"splits": {"x": Split(torch.ones(4), torch.ones(4))}}, r"splits\['x'\].train has dtype"),
            (
                {"splits": {"x": Split(torch.ones(4) > 0, torch.ones(4) > 0)}},
                r"clip 0 \('a'\) is in train and in test",
            ),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(make(), **fields)

    def test_fields_must_be_tensors(self) -> None:
        with pytest.raises(TypeError, match="offsets is a list"):
            dataclasses.replace(make(), offsets=[0, 1])  # type: ignore[arg-type]

    def test_check_names_clip_and_frame(self) -> None:
        data = dataclasses.replace(make(), body_start=torch.tensor([0, 0, 4, 0, 0]))
        data.check()
        data.coords[9, 3, 1] = float("nan")
        with pytest.raises(ValueError, match=r"clip 1 \('b'\), frame 5: coordinates are not finite"):
            data.check()


class TestViews:
    def test_split(self) -> None:
        data = make()
        assert data.split("official").train.tolist() == [True, False, True, False]
        with pytest.raises(ValueError, match=r"unknown split 'offical'.*did you mean 'official'"):
            data.split("offical")
        with pytest.raises(ValueError, match="unknown split 'x': the data set has no split"):
            make(splits={}).split("x")

    def test_select_by_mask_and_by_indices(self) -> None:
        data = dataclasses.replace(make(), body_start=torch.tensor([0, 0, 2, 0, 1]))
        assert_same(data.select(torch.ones(4, dtype=torch.bool)), data)
        some = data.select([3, 1])
        assert some.names == ["d", "b"]
        assert some.labels.tolist() == [1, 0]
        assert some.offsets.tolist() == [0, 2, 5, 8]
        assert some.body_clip.tolist() == [0, 1, 1]
        assert some.body_start.tolist() == [1, 0, 2]
        assert torch.equal(some.coords, torch.cat([data.coords[12:14], data.coords[5:11]]))
        assert some.columns["subject"].tolist() == [2, 0]
        assert some.splits["official"].test.tolist() == [True, True]
        assert data.select(np.array([False, True, False, True])).names == ["b", "d"]

    @pytest.mark.parametrize(
        ("clips", "message"),
        [
            ([True, False], "mask of shape"),
            ([False] * 4, "at least one clip"),
            ([4], "names clip 4, expected 0 to 3"),
            ([-1, 2], "names clip -1"),
            ([1.0], "expected bool"),
            ([[1]], "expected a mask or indices"),
        ],
    )
    def test_bad_selections(self, clips: list[Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make().select(clips)

    def test_clip_frames_reach_to_the_last_body(self) -> None:
        data = dataclasses.replace(make(), body_start=torch.tensor([0, 0, 2, 0, 1]))
        assert data.clip_frames().tolist() == [5, 5, 1, 3]

    def test_summary(self) -> None:
        summary = make().summary()
        assert (summary["clips"], summary["bodies"], summary["frames"]) == (4, 5, 14)
        assert summary["clip_frames"] == {"shortest": 1, "median": 2, "longest": 5}
        assert summary["bodies_per_clip"] == {1: 3, 2: 1}
        assert summary["splits"] == {"official": {"train": 2, "test": 2}}
        assert summary["unlabelled_clips"] == 1
        assert summary["classes"] == 2
        assert summary["fps"] == [30.0]
        json.dumps(summary)

    @pytest.mark.gpu
    def test_to_a_gpu_and_back(self) -> None:
        data = make()
        moved = data.to("cuda")
        assert moved.splits["official"].train.device.type == moved.columns["view"].device.type == "cuda"
        assert moved.fingerprint() == data.fingerprint()
        assert_same(moved.select([2, 0]).to("cpu"), data.select([2, 0]))


class TestHalf:
    def test_two_metres_is_where_the_spacing_passes_a_millimetre(self) -> None:
        below = np.nextafter(np.float16(2), np.float16(0))
        assert np.spacing(below) < 1e-3 < np.spacing(np.float16(2))

    def test_half_keeps_a_millimetre(self) -> None:
        data = make()
        data.coords.clamp_(-2, 2)
        half = data.half()
        assert half.coords.dtype == torch.float16
        assert float((half.coords.float() - data.coords).abs().max()) < 0.5e-3
        half.check()

    def test_far_coordinates_are_refused_with_their_clip(self, tmp_path: Path) -> None:
        data = make()
        data.coords.clamp_(-1, 1)
        data.coords[6, 2, 0] = -3.25
        with pytest.raises(
            ValueError, match=r"clip 1 \('b'\), frame 1: a coordinate of 3.25 m does not fit float16"
        ):
            data.half()
        forced = dataclasses.replace(data, coords=data.coords.half())
        with pytest.raises(ValueError, match="does not fit float16"):
            forced.save(tmp_path / "x.safetensors")
        assert list(tmp_path.iterdir()) == []


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
