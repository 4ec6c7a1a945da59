from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastamr.data import PackedSkeletons
from fastamr.data import load as load_set
from fastamr.data.prepare import work_folder as prepare_shards
from fastamr.data.prepare.prepare import prepare
from fastamr.data.preprocessing.apply import preprocess
from fastamr.data.preprocessing.geometry import Step
from fastamr.data.readers.common.sources import Entry
from fastamr.data.readers.raw_sets.bodies import BodyChoice
from fastamr.data.readers.raw_sets.ntu import NtuReader
from fastamr.data.readers.raw_sets.raw import Task

from ..readers.writers import frames_of, skeleton_text, standing
from .ntu_folder import NAMES, contents, fill, load, zipped


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return fill(tmp_path / "raw", contents())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "ntu60.safetensors"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_shards, "_BLOCK_FILES", 2)


class TestNtu:
    def test_everything_that_a_file_says(self, raw: Path, out: Path) -> None:
        report = prepare("ntu60", raw, out)
        data = load(out)
        assert data.names == NAMES
        assert data.layout.name == "ntu25"
        assert data.labels.tolist() == [0, 59, 9, 6, 49]
        assert (data.label_names[59], len(data.label_names)) == ("walking apart from each other", 60)
        assert data.fps.tolist() == [30.0] * 5
        assert {name: column.tolist() for name, column in data.columns.items()} == {
            "setup": [1, 1, 2, 17, 17],
            "view": [1, 2, 3, 1, 2],
            "subject": [1, 3, 38, 40, 2],
            "rep": [1, 1, 2, 1, 2],
        }
        assert data.splits["xsub"].train.tolist() == [True, False, True, False, True]
        assert data.splits["xsub"].test.tolist() == [False, True, False, True, False]
        assert data.splits["xview"].train.tolist() == [False, True, True, False, True]
        assert data.body_clip.tolist() == [0, 1, 1, 2, 3, 4]
        assert data.clip_frames().tolist() == [15, 20, 17, 18, 15]
        np.testing.assert_array_equal(data.coords[:15], standing(15, 0))
        np.testing.assert_array_equal(data.coords[15:35], standing(20, 2, 1.0, 0.2))  # the more active one
        np.testing.assert_array_equal(data.coords[35:55], standing(20, 1))
        np.testing.assert_array_equal(
            data.coords[-15:], np.concatenate([np.zeros((3, 25, 3)), standing(12, 4)])
        )
        assert data.valid is None
        assert (report.files, report.damaged, report.dropped, report.left_out) == (5, [], {}, {})
        assert data.steps[0]["about"] == "bodies"
        assert (data.steps[0]["min_frames"], data.steps[0]["motion"]) == (12, [0.0, None])
        assert [note.split(":")[0] for note in report.notes] == ["no list of clips to skip is given"]
        assert not out.with_name(out.name + ".partial").exists()
        assert sorted(path.name for path in out.parent.iterdir()) == ["ntu60.report.json", out.name, "raw"]

    def test_ntu120_has_its_own_protocols(self, raw: Path, out: Path) -> None:
        fill(raw, {"S032C001P106R001A120.skeleton": contents()[f"{NAMES[0]}.skeleton"]})
        prepare("ntu120", raw, out)
        data = load(out)
        assert list(data.splits) == ["xsub", "xset"]
        assert data.splits["xset"].train.tolist() == [False, False, True, False, False, True]
        assert len(data.label_names) == 120
        report = prepare("ntu60", raw, out)
        assert load(out).num_clips == 5
        assert list(report.left_out.values()) == ["is no clip of NTU-60"]

    def test_archives_without_unpacking(self, raw: Path, out: Path, tmp_path: Path) -> None:
        prepare("ntu60", raw, out)
        expected = load(out).fingerprint()
        prepare("ntu60", zipped(tmp_path / "all.zip", contents()), out)
        assert load(out).fingerprint() == expected
        halves = list(contents().items())
        (tmp_path / "downloads").mkdir()
        zipped(tmp_path / "downloads" / "s001.zip", dict(halves[:3]))
        zipped(tmp_path / "downloads" / "s018.zip", dict(halves[2:]))
        report = prepare("ntu60", tmp_path / "downloads", out)
        assert load(out).fingerprint() == expected
        assert len(report.left_out) == 1
        assert "has the same name and was taken" in next(iter(report.left_out.values()))
        assert sorted(path.name for path in (tmp_path / "downloads").iterdir()) == ["s001.zip", "s018.zip"]

    def test_clips_without_bodies_and_clips_to_skip_are_listed(self, raw: Path, out: Path) -> None:
        missing = {"S003C001P001R001A001": [{}, {}], "S003C001P001R001A002": []}
        zeros = frames_of((7, 0, np.zeros((3, 25, 3))))
        fill(raw, {f"{name}.skeleton": skeleton_text(frames) for name, frames in missing.items()})
        fill(raw, {"S003C001P001R001A003.skeleton": skeleton_text(zeros)})
        report = prepare("ntu60", raw, out, options={"skip": frozenset([NAMES[0]])})
        data = load(out)
        assert (
            data.dropped
            == report.dropped
            == {
                NAMES[0]: "in the list of clips to skip",
                "S003C001P001R001A001": "no body",
                "S003C001P001R001A002": "no frames",
                "S003C001P001R001A003": "no body",
            }
        )
        assert (data.names, report.damaged) == (NAMES[1:], [])

    def test_options_of_the_reader(self, raw: Path, out: Path) -> None:
        prepare("ntu60", raw, out, options={"choice": BodyChoice(bodies=1), "min_state": 1})
        data = load(out)
        assert data.num_bodies == 5
        assert data.valid is not None
        assert (~data.valid).any(1).sum() == 3  # the frames before the last clip's body
        with pytest.raises(
            ValueError, match=r"unknown option of kind 'ntu60' 'min_stat'.*did you mean 'min_state'"
        ):
            prepare("ntu60", raw, out, options={"min_stat": 1})

    def test_steps_and_dtype_are_applied_and_recorded(self, raw: Path, out: Path) -> None:
        prepare("ntu60", raw, out)
        whole = preprocess(load(out), ["center", "scale:factor=0.5"]).half()
        prepare("ntu60", raw, out, steps=["center", "scale:factor=0.5"], dtype="float16")
        data = load(out)
        assert data.fingerprint() == whole.fingerprint()
        assert [step["name"] for step in data.steps] == ["note", "center", "scale"]
        with pytest.raises(ValueError, match=r"S001C001P001R001A001.*does not fit float16"):
            prepare("ntu60", raw, out.with_name("other.safetensors"), dtype="float16")


@dataclass(frozen=True)
class LongOnly(Step):
    """Drops the clips of fewer than 16 frames."""

    name: ClassVar[str] = "long_only"

    def __call__(self, data: PackedSkeletons) -> PackedSkeletons:
        long = data.clip_frames() >= 16
        short = {name: "short" for name, keep in zip(data.names, long.tolist(), strict=True) if not keep}
        return dataclasses.replace(data.select(long), dropped=data.dropped | short)


class TestStreaming:
    def test_clips_that_a_step_drops_are_listed(self, raw: Path, out: Path) -> None:
        report = prepare("ntu60", raw, out, steps=[LongOnly()])
        assert report.dropped == load(out).dropped == {NAMES[0]: "short", NAMES[4]: "short"}
        assert load(out).names == NAMES[1:4]

    @pytest.mark.usefixtures("small_blocks")
    def test_blocks_make_the_same_file_as_one_piece(self, raw: Path, out: Path) -> None:
        """The streamed file has what save() would write, byte for byte in each tensor."""
        prepare("ntu60", raw, out, options={"min_state": 2}, steps=["center"])
        data = load(out)
        data.save(out.with_name("saved.safetensors"))
        first, second = (load_file(path) for path in (out, out.with_name("saved.safetensors")))
        assert list(first) == list(second)
        assert all(
            torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype
            for name in first
        )
        assert "valid" in first
        reader = NtuReader(60, min_state=2)
        clips = []
        for name in NAMES:
            path = raw / f"{name}.skeleton"
            entry = Entry(str(raw), path.name, path.stat().st_size, 0, archived=False)
            clips += reader.read(Task(name, (entry,)))
        packed = PackedSkeletons.from_clips(
            [clip.coords for clip in clips], layout="ntu25", valid=[clip.valid for clip in clips], names=NAMES
        )
        packed = preprocess(packed, ["center"])
        assert torch.equal(packed.coords, data.coords)
        assert torch.equal(packed.valid, data.valid)
        assert torch.equal(packed.offsets, data.offsets)
        assert torch.equal(packed.body_clip, data.body_clip)

    @pytest.mark.usefixtures("small_blocks")
    def test_workers_change_nothing(self, raw: Path, out: Path) -> None:
        fill(raw, {"S001C001P001R001A002.skeleton": b"1\n"})
        one = prepare("ntu60", raw, out)
        expected = load(out).fingerprint()
        two = prepare("ntu60", raw, out, workers=2)
        assert load(out).fingerprint() == expected
        assert one.damaged == two.damaged
        assert len(one.damaged) == 1

    def test_large_files_are_blocks_of_their_own(self) -> None:
        def task(size: int) -> Task:
            return Task("t", (Entry("", "t", size, 0, archived=False),))

        megabyte = 1 << 20
        sizes = [20 * megabyte, 13 * megabyte, 100 * megabyte, 10, 10]
        blocks = prepare_shards.make_blocks([task(size) for size in sizes])
        assert [[item.size for item in block] for block in blocks] == [
            [20 * megabyte],
            [13 * megabyte],
            [100 * megabyte],
            [10, 10],
        ]
        assert [len(block) for block in prepare_shards.make_blocks([task(1)] * 130)] == [64, 64, 2]


@pytest.mark.usefixtures("small_blocks")
class TestInterruption:
    @pytest.fixture
    def interrupted(self, raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A work folder with two of three blocks."""
        self.stop_after(2, monkeypatch)
        with pytest.raises(KeyboardInterrupt, match=r"ntu60.safetensors.partial; the same command continues"):
            prepare("ntu60", raw, out)
        monkeypatch.undo()
        monkeypatch.setattr(prepare_shards, "_BLOCK_FILES", 2)
        assert not out.exists()
        return out.with_name(out.name + ".partial")

    def stop_after(self, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[int] = []

        def run_block(job: Any, index: int, tasks: Any) -> Any:
            if len(done) == blocks:
                raise KeyboardInterrupt
            done.append(index)
            return prepare_shards.run_block(job, index, tasks)

        module = importlib.import_module("fastamr.data.prepare.prepare")
        monkeypatch.setattr(module, "run_block", run_block)

    def test_continues(
        self, interrupted: Path, raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        original = NtuReader.read

        def counting(reader: NtuReader, task: Task) -> Any:
            read.append(task.name)
            return original(reader, task)

        monkeypatch.setattr(NtuReader, "read", counting)
        report = prepare("ntu60", raw, out)
        assert read == NAMES[4:]
        assert report.files == 5
        assert not interrupted.exists()
        continued = load(out).fingerprint()
        prepare("ntu60", raw, out)
        assert load(out).fingerprint() == continued

    def test_a_block_without_its_result_is_read_again(self, interrupted: Path, raw: Path, out: Path) -> None:
        (interrupted / "00001.json").unlink()
        (interrupted / "00001.safetensors").write_bytes(b"half")
        prepare("ntu60", raw, out)
        assert load(out).num_clips == 5

    def test_a_block_that_could_not_be_written_is_read_again(
        self, raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(PackedSkeletons, "save", full)
        with pytest.raises(OSError, match="No space left"):
            prepare("ntu60", raw, out)
        monkeypatch.undo()
        monkeypatch.setattr(prepare_shards, "_BLOCK_FILES", 2)
        prepare("ntu60", raw, out)
        assert load(out).num_clips == 5

    def test_stopped_right_after_the_start(self, raw: Path, out: Path) -> None:
        folder = out.with_name(out.name + ".partial")
        folder.mkdir()
        (folder / ".manifest.json.x.part").write_bytes(b"")
        prepare("ntu60", raw, out)
        assert load(out).num_clips == 5

    def test_a_foreign_folder_is_left_alone(self, raw: Path, out: Path) -> None:
        folder = out.with_name(out.name + ".partial")
        folder.mkdir()
        (folder / "thesis.tex").write_bytes(b"years of work")
        with pytest.raises(ValueError, match=r"manifest.json cannot be read.*delete the folder"):
            prepare("ntu60", raw, out)
        assert (folder / "thesis.tex").read_bytes() == b"years of work"

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"steps": ["center"]}, "steps"),
            ({"dtype": "float16"}, "dtype"),
            ({"options": {"min_state": 1}}, "options"),
            ({"options": {"skip": frozenset([NAMES[0]])}}, "options and files"),
        ],
    )
    def test_other_settings_do_not_mix(
        self, interrupted: Path, raw: Path, out: Path, changes: dict[str, Any], what: str
    ) -> None:
        with pytest.raises(
            ValueError, match=f"holds unfinished work with other {what}; finish it with those"
        ):
            prepare("ntu60", raw, out, **changes)
        assert (interrupted / "00001.json").exists()

    def test_settings_may_change_before_anything_is_finished(self, raw: Path, out: Path) -> None:
        with pytest.raises(ValueError, match="does not fit float16"):
            prepare("ntu60", raw, out, dtype="float16")
        prepare("ntu60", raw, out)
        assert load(out).coords.dtype == torch.float32

    def test_other_files_do_not_mix(self, interrupted: Path, raw: Path, out: Path) -> None:
        fill(raw, {f"{NAMES[0]}.skeleton": contents()[f"{NAMES[3]}.skeleton"]})
        with pytest.raises(ValueError, match="holds unfinished work with other files"):
            prepare("ntu60", raw, out)

    def test_a_failure_while_writing_keeps_the_old_file_and_the_work(
        self, raw: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        load_set("synthetic").select([0]).save(out)
        old = out.read_bytes()

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fastamr.data.packed.file.write_tensors", full)
        with pytest.raises(OSError, match=r"No space left on device.*is intact"):
            prepare("ntu60", raw, out)
        assert out.read_bytes() == old
        monkeypatch.undo()
        self.stop_after(0, monkeypatch)
        monkeypatch.setattr(prepare_shards, "_BLOCK_FILES", 2)
        prepare("ntu60", raw, out)
        assert load(out).num_clips == 5
