"""The work folder of ``fastamr prepare``: finished blocks of files, so that an interrupted run continues.

A block is some files that are read in one go. Its result is ``00012.json``, written last, and ``00012.safetensors``,
unless none of its files gave a clip. ``manifest.json`` says what the work is; other work does not mix with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import STRAY
from ...files import make_folder, write_text
from ..packed.concatenate import concatenate
from ..packed.dataset import PackedSkeletons
from ..packed.file import write_packed_pieces
from ..preprocessing.apply import preprocess
from ..preprocessing.geometry import Step
from ..readers.common.reader import Damage
from ..readers.common.sources import DamagedFile
from ..readers.raw_sets.raw import RawClip, RawReader, Task

_BLOCK_FILES, _BLOCK_BYTES = 64, 32 << 20
_MANIFEST = "manifest.json"
_VERSION = 1


@dataclass(frozen=True)
class Job:
    """What is done to every block.

    Args:
        reader: reads the files.
        steps: pre-processing.
        dtype: ``"float32"`` or ``"float16"``.
        folder: the work folder.
    """

    reader: RawReader
    steps: tuple[Step, ...]
    dtype: str
    folder: Path


@dataclass
class BlockResult:
    """What came of a block.

    Args:
        files: how many files were read.
        clips: how many clips they gave.
        damaged: files that were left out.
        dropped: name and reason of clips that were left out.
        notes: what was mended.
    """

    files: int
    clips: int = 0
    damaged: list[Damage] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def make_blocks(tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
    """Part tasks into blocks of at most 64 files and, but for single large files, 32 MB (choice)."""
    blocks: list[list[Task]] = []
    room = 0
    for task in tasks:
        if not blocks or len(blocks[-1]) == _BLOCK_FILES or task.size > room:
            blocks.append([])
            room = _BLOCK_BYTES
        blocks[-1].append(task)
        room -= task.size
    return [tuple(block) for block in blocks]


def open_folder(job: Job, blocks: Sequence[Sequence[Task]]) -> dict[int, BlockResult]:
    """Make the work folder, or find in it what was finished before.

    Returns:
        The results by block.

    Raises:
        ValueError: the folder is not of this work.
        OSError: it cannot be made.
    """
    manifest = _manifest(job, blocks)
    path = job.folder / _MANIFEST
    found = {} if _is_new(job.folder) else _read_json(path)
    results = [_stem(job.folder, index).with_suffix(".json") for index in range(len(blocks))]
    finished = {index: result for index, result in enumerate(results) if result.is_file()}
    differing = [key for key, value in manifest.items() if found.get(key) != value]
    if finished and differing:
        raise ValueError(
            f"{job.folder} holds unfinished work with other {' and '.join(differing)}; finish it with those, or "
            f"delete the folder to start anew"
        )
    if differing:
        make_folder(job.folder).mkdir(exist_ok=True)
        write_text(path, json.dumps(manifest))
    return {index: _result_from(_read_json(result), result) for index, result in finished.items()}


def remove_folder(folder: Path) -> None:
    """Remove the work folder; an interruption leaves nothing that a later run could take for work."""
    done = folder.with_name(folder.name + ".done")
    shutil.rmtree(done, ignore_errors=True)
    folder.rename(done)
    shutil.rmtree(done)


def run_block(job: Job, index: int, tasks: Sequence[Task]) -> BlockResult:
    """Read a block of files, pre-process its clips and write the result into the work folder.

    Raises:
        ValueError: a step or the dtype does not suit a clip.
        OSError: the result cannot be written.
    """
    result = BlockResult(files=len(tasks))
    clips: list[RawClip] = []
    for task in tasks:
        try:
            found = job.reader.read(task)
        except DamagedFile as error:
            file = error.file or str(task.entries[0])
            result.damaged.append(Damage(file, error.reason, error.line))
            continue
        except (ValueError, *STRAY) as error:
            reason = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            result.damaged.append(Damage(str(task.entries[0]), reason))
            continue
        for clip in found:
            reason = clip.bad or _emptiness(clip)
            if reason:
                result.dropped[clip.name] = reason
            else:
                clips.append(clip)
                result.notes += [f"{clip.name}: {clip.note}"] if clip.note else []
    stem = _stem(job.folder, index)
    if clips:
        data = _pack(job, clips)
        data.save(stem.with_suffix(".safetensors"))
        result.clips = data.num_clips
        result.dropped |= data.dropped  # by a step
    write_text(stem.with_suffix(".json"), json.dumps(dataclasses.asdict(result)))
    return result


def join_blocks(job: Job, results: Mapping[int, BlockResult]) -> tuple[PackedSkeletons, BlockResult]:
    """Join the blocks: all but the coordinates.

    Returns:
        The data set, with ``coords``, ``valid`` and ``frame_labels`` on the device ``meta``, and the sum of all
        results.

    Raises:
        ValueError: no block has a clip.
    """
    total = BlockResult(files=0)
    for _, result in sorted(results.items()):
        total.files += result.files
        total.clips += result.clips
        total.damaged += result.damaged
        total.dropped |= result.dropped
        total.notes += result.notes
    parts = [_without_coordinates(part) for part in _blocks(job, results)]
    if not parts:
        first = [str(damage) for damage in total.damaged] + [f"{k}: {v}" for k, v in total.dropped.items()]
        raise ValueError(
            f"none of the {total.files} files gave a clip; the first: {first[0] if first else 'no file'}"
        )
    return dataclasses.replace(concatenate(parts), dropped=total.dropped), total


def write_joined(data: PackedSkeletons, path: Path, job: Job, results: Mapping[int, BlockResult]) -> None:
    """Write the joined data set, one block in memory at a time."""
    write_packed_pieces(data, path, lambda: _blocks(job, results))


def _blocks(job: Job, results: Mapping[int, BlockResult]) -> Iterator[PackedSkeletons]:
    for index, result in sorted(results.items()):
        if result.clips:
            yield PackedSkeletons.load(_stem(job.folder, index).with_suffix(".safetensors"))


def _without_coordinates(data: PackedSkeletons) -> PackedSkeletons:
    """Return the data set with all other tensors copied out of the mapped file."""
    tensors: dict[str, Any] = {
        item.name: value.to("meta") if item.name in ("coords", "valid", "frame_labels") else value.clone()
        for item in dataclasses.fields(data)
        if isinstance(value := getattr(data, item.name), torch.Tensor)
    }
    columns = {name: column.clone() for name, column in data.columns.items()}
    return dataclasses.replace(data, **tensors, columns=columns)


def _emptiness(clip: RawClip) -> str:
    """Return why a clip has nothing to pack, or ""."""
    if len(clip.coords) == 0:
        return "no frames"
    seen = clip.coords if clip.valid is None else clip.coords[clip.valid]
    return "" if seen.any() else "no body"


def _pack(job: Job, clips: Sequence[RawClip]) -> PackedSkeletons:
    masks = [clip.valid for clip in clips if clip.valid is not None]
    frame_labels = [clip.frame_labels for clip in clips if clip.frame_labels is not None]
    data = PackedSkeletons.from_clips(
        [clip.coords for clip in clips],
        layout=job.reader.layout,
        labels=[clip.label for clip in clips],
        label_names=job.reader.label_names,
        fps=job.reader.fps,
        names=[clip.name for clip in clips],
        columns={name: np.array([clip.columns[name] for clip in clips]) for name in clips[0].columns},
        column_names=job.reader.column_names,
        valid=masks or None,
        frame_labels=frame_labels or None,
    )
    data = preprocess(dataclasses.replace(data, steps=job.reader.notes), job.steps)
    return data.half() if job.dtype == "float16" and data.coords.dtype != torch.float16 else data


def _manifest(job: Job, blocks: Iterable[Sequence[Task]]) -> dict[str, Any]:
    """Return what makes work the same: the files by name, size and stamp, and all settings."""
    files = hashlib.blake2b(digest_size=16)
    for block in blocks:
        for task in block:
            for entry in task.entries:
                files.update(
                    f"{entry.name}\0{entry.size}\0{entry.stamp}\0".encode("utf-8", "surrogateescape")
                )
        files.update(b"\n")
    return {
        "version": _VERSION,
        "reader": type(job.reader).__name__,
        "options": _options_text(job.reader),
        "steps": json.dumps([step.to_dict() for step in job.steps]),
        "dtype": job.dtype,
        "files": files.hexdigest(),
    }


def _options_text(reader: Any) -> str:
    """Return the settings of a reader as text that is the same in every process."""
    settings = dataclasses.asdict(reader)
    return json.dumps(settings, sort_keys=True, default=lambda value: sorted(value))


def _is_new(folder: Path) -> bool:
    """Say whether nothing was begun in the folder; a run may have been stopped right after it was made."""
    return not folder.exists() or all(path.suffix == ".part" for path in folder.iterdir())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); delete the folder {path.parent} to start anew"
        ) from None
    return content if isinstance(content, dict) else {}


def _result_from(content: dict[str, Any], path: Path) -> BlockResult:
    try:
        damaged = [Damage(**damage) for damage in content.pop("damaged")]
        return BlockResult(damaged=damaged, **content)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete the folder {path.parent} to start anew"
        ) from None


def _stem(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}"
