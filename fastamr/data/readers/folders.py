"""Several files, and folders with files of any kind, read as one data set."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...progress import Progress
from ..packed.concatenate import concatenate
from ..packed.dataset import PackedSkeletons
from .common.reader import Damage, Reader, Reading, Source
from .file_search import FoundFiles, Unit, folder_reader, identity_of
from .own import SYNTHETIC
from .registry import UnknownFormatError, endings, find_reader, of_kind, read_with

FILE = "file"
"""The column that names the file of each clip, where a file holds several."""

_SHOWN = 5
# From so many files on a bar is shown.
_MANY = 20


def is_folder_of_files(path: str | Path, kind: str | None = None) -> bool:
    """Tell whether a path is a folder or a zip archive that no reader reads as a whole."""
    source = Source(path)
    if str(path) == SYNTHETIC or not source.is_folder or not source.path.exists():
        return False
    readers = [reader for reader in of_kind(kind) if isinstance(reader, Reader)]
    if kind is not None and len(readers) == 1 and readers[0].takes_folder and not _has_folders(source.path):
        return False  # Its own errors say more.
    return folder_reader(source, kind) is None and bool(readers)


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(entry.is_dir() for entry in path.iterdir())


def read_files(
    paths: Sequence[str | Path],
    *,
    kind: str | None = None,
    without: Iterable[str | Path] = (),
    **options: Any,
) -> Reading:
    """Read files and folders as one data set.

    A folder that a reader knows as a whole (a video's key points, a file a frame) is read by it; of any other folder,
    or zip archive, every file that a reader knows is read, with the folders below it. A file of one clip gives the
    clip its path below the folder without the ending (``wave/0001``); a file of several puts it before their names,
    and the column :data:`FILE` says of each clip which file it is from. Hidden files and links to files that are read
    already are passed over; hidden folders, and files that no reader knows, are named in a note, damaged ones in
    ``dropped``.

    Args:
        paths: files, folders and zip archives; names of clips begin below the folder that holds all of them.
        kind: the kind of all files; None tells it of each.
        without: files that are not read, such as the one that is to be written.
        options: of the readers, by name; each gets those that it takes.

    Raises:
        FileNotFoundError: one of the paths does not exist.
        ValueError: no file can be read, files have different layouts or channels, or no reader takes an option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    with contextlib.ExitStack() as stack:
        found = FoundFiles(kind, {identity_of(Path(path)) for path in without if Path(path).exists()}, stack)
        top = _top(paths)
        for path in map(Path, paths):
            found.add(path, top)
        found.name_after_folders()
        readings = _Readings(found, kind, given)
        readings.read()
        try:
            result = readings.join(paths)
        except ValueError as error:
            if not found.unpacked:
                raise
            raise ValueError(_told(str(error), found.unpacked)) from None
        return _shown_paths(result, found.unpacked)


@dataclass
class _Readings:
    """What came of the files, one after another."""

    found: FoundFiles
    kind: str | None
    given: Mapping[str, Any]
    parts: list[tuple[Unit, PackedSkeletons]] = field(default_factory=list)
    notes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    unknown: list[Unit] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    packed: list[Unit] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def read(self) -> None:
        """Read all files; those that no reader knows, and damaged ones, cost themselves only."""
        units = self.found.units
        self.damaged += self.found.damaged
        self.unknown += self.found.unknown
        with Progress(len(units), "files", show=len(units) >= _MANY, unit="file") as progress:
            for unit in units:
                try:
                    self._read(unit)
                except UnknownFormatError:
                    self.unknown.append(unit)
                except (ValueError, OSError) as error:
                    self.damaged.append(_damage(unit.path, error))
                progress.advance()

    def _read(self, unit: Unit) -> None:
        source = Source(unit.path)
        reader = find_reader(source, self.kind)
        if reader.name == "packed":
            self.packed.append(unit)
        options = {name: value for name, value in self.given.items() if name in reader.options}
        self.taken |= options.keys()
        reading = read_with(reader, source, options)
        self.parts.append((unit, reading.data))
        self.damaged += reading.damaged
        for note in reading.notes:
            pattern = re.sub(r"\d+", "#", _plain_note(note, unit))
            self.notes.setdefault(pattern, []).append((unit.name, note))

    def join(self, paths: Sequence[str | Path]) -> Reading:
        """Return all clips as one data set."""
        if not self.parts:
            raise self._nothing(paths)
        self._check_options(paths)
        beside = self._leave_out_packed(paths)
        self._check_same()
        names = _distinct(
            [
                [unit.name if data.num_clips == 1 else f"{unit.name}/{name}" for name in data.names]
                for unit, data in self.parts
            ],
            [unit for unit, _ in self.parts],
        )
        several = any(data.num_clips > 1 for _, data in self.parts)
        parts = [
            _named(unit, data, clips, several)
            for (unit, data), (clips, _) in zip(self.parts, names, strict=True)
        ]
        data = concatenate(parts)
        lost = {damage.file: damage.reason for damage in self.damaged}
        data = dataclasses.replace(data, dropped=data.dropped | lost)
        renamed = sum(is_new for _, is_new in names)
        notes = [*_merged(self.notes), *beside, *self._notes(renamed)]
        return Reading(data, len(self.found.units), self.damaged, notes)

    def _leave_out_packed(self, paths: Sequence[str | Path]) -> list[str]:
        """Leave out packed files that lie beside the files that they may have been made from."""
        given = {Path(path).absolute() for path in paths}
        beside = [unit for unit in self.packed if unit.path.absolute() not in given]
        if not beside or len(self.parts) == len(self.packed):
            return []
        self.parts = [(unit, data) for unit, data in self.parts if unit not in beside]
        return [
            f"{_names(beside)}: packed data beside files of other kinds, not read; give it by name to read it as well"
        ]

    def _notes(self, renamed: int) -> list[str]:
        notes = []
        if self.unknown:
            notes.append(f"{_count(self.unknown)} that no reader knows, not read: {_names(self.unknown)}")
        if self.found.hidden:
            notes.append(f"folders hidden by a leading dot, not read: {_names(self.found.hidden)}")
        if self.damaged:
            notes.append(
                f"damaged, left out: {_count(self.damaged)}: {'; '.join(map(str, self.damaged[:_SHOWN]))}"
                + ("; ..." if len(self.damaged) > _SHOWN else "")
            )
        if self.found.links:
            notes.append(f"{_count(range(self.found.links))} given or linked a second time, read once")
        if renamed:
            notes.append(
                f"the clips of {_count(range(renamed))} had the names of other clips; theirs now tell the file's "
                f"ending, or a number"
            )
        raw = [
            unit for unit, _ in self.parts if re.fullmatch(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}", unit.path.stem)
        ]
        if raw and all(data.labels.max() < 0 for unit, data in self.parts if unit in raw):
            notes.append(
                f"{_count(raw)} named as clips of NTU RGB+D; fastamr prepare ntu60 (or ntu120) also gives them "
                f"labels and splits"
            )
        return notes

    def _check_options(self, paths: Sequence[str | Path]) -> None:
        for name, value in self.given.items():
            if name not in self.taken:
                raise ValueError(
                    f"{name} is {value!r}, but it is read from {_names_of(paths)}; omit --{name.replace('_', '-')}"
                )

    def _check_same(self) -> None:
        first, one = self.parts[0]
        for unit, other in self.parts[1:]:
            ours, theirs = (
                (data.layout.joints, data.layout.parents, data.coords.shape[-1]) for data in (one, other)
            )
            if ours != theirs:
                raise ValueError(
                    f"{first.path} has layout {one.layout.name!r} in {one.coords.shape[-1]} channels, {unit.path} has "
                    f"{other.layout.name!r} in {other.coords.shape[-1]}; files of one data set share both: name the "
                    f"skeleton with --layout, or import them apart and map one with fastamr convert --layout"
                )

    def _nothing(self, paths: Sequence[str | Path]) -> ValueError:
        """Return the error where no file was read: what was found, and what would have been read."""
        where = _names_of(paths)
        is_folder = len(paths) == 1 and Path(paths[0]).is_dir()
        if is_folder:
            where += " is a folder"
        if self.damaged:
            count = len(self.damaged) + len(self.unknown)
            found = f"none of its {count} files can be read; the first damaged one is {self.damaged[0]}"
        elif self.unknown:
            kinds = Counter(unit.path.suffix.lower() or "no ending" for unit in self.unknown)
            found = f"no reader knows its {_count(self.unknown)} ("
            found += ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_SHOWN))
            found += f"): {_names(self.unknown)}"
        else:
            found = "it holds no file"
        raw = (
            f"; a data set's raw files are read with: fastamr prepare KIND {paths[0]} OUT"
            if is_folder
            else ""
        )
        return ValueError(f"{where}; {found}; expected {endings()}{raw}")


def _top(paths: Sequence[str | Path]) -> Path:
    """Return the folder below which names begin."""
    if len(paths) == 1:
        path = Path(paths[0])
        return path if Source(path).is_folder else path.absolute().parent
    return Path(os.path.commonpath([Path(path).absolute().parent for path in paths]))


def _damage(path: Path, error: Exception) -> Damage:
    reason = " ".join(str(error).split())
    match = re.match(rf"{re.escape(str(path))}(?:, line (\d+))?[:,]? *", reason)
    if match is None:
        return Damage(str(path), reason)
    return Damage(str(path), reason[match.end() :], int(match[1]) if match[1] else None)


def _plain_note(note: str, unit: Unit) -> str:
    """Return a note without the name of its file."""
    for text in (str(unit.path), unit.path.name):
        note = re.sub(
            rf"(?<![\w./-]){re.escape(text)}(?![\w-])(: )?",
            lambda found: "" if found[1] else "the file",
            note,
        )
    # A short name may also be a word.
    stem = unit.path.stem
    return note.removeprefix(f"{stem}: ").replace(repr(stem), "the file")


def _merged(notes: Mapping[str, Sequence[tuple[str, str]]]) -> Iterator[str]:
    """Yield each note once, with the number of files that it is true of."""
    for found in notes.values():
        files = list(dict.fromkeys(name for name, _ in found))
        text = found[0][1]
        if len(files) == 1:
            yield from dict.fromkeys(f"{name}: {note}" if name not in note else note for name, note in found)
        else:
            like = "" if all(note == text for _, note in found) else " or the like"
            yield f"{text} (so{like} in {len(files)} files, the first is {files[0]})"


def _distinct(names: Sequence[list[str]], units: Sequence[Unit]) -> list[tuple[list[str], bool]]:
    """Return the clips' names made distinct, and of each file whether its own had to change."""
    used: set[str] = set()
    result = []
    for clips, unit in zip(names, units, strict=True):
        new = clips
        if used & set(clips):
            suffix = unit.path.suffix
            new = [clip.replace(unit.name, unit.name + suffix, 1) for clip in clips]
        number = 2
        while used & set(new):
            new = [f"{clip} ({number})" for clip in clips]
            number += 1
        used |= set(new)
        result.append((new, new is not clips))
    return result


def _named(unit: Unit, data: PackedSkeletons, clips: list[str], several: bool) -> PackedSkeletons:
    """Return the clips of a file under their names in the whole."""
    dropped = {
        f"{unit.name}/{name}" if name != unit.name else name: why for name, why in data.dropped.items()
    }
    columns, column_names = dict(data.columns), dict(data.column_names)
    if several:
        # A folder of frames holds clips that are files of their own, as far as labels and splits go.
        files = clips if unit.path.is_dir() else [unit.name] * len(clips)
        names = tuple(dict.fromkeys(files))
        places = {name: place for place, name in enumerate(names)}
        columns[FILE] = torch.tensor([places[file] for file in files])
        column_names[FILE] = names
    return dataclasses.replace(data, names=clips, columns=columns, column_names=column_names, dropped=dropped)


def _count(files: Sequence[object]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"


def _names(units: Sequence[Unit]) -> str:
    names = [unit.path.name if "/" not in unit.name else f"{unit.name}{unit.path.suffix}" for unit in units]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _names_of(paths: Sequence[str | Path]) -> str:
    return ", ".join(map(str, paths[:_SHOWN])) + (", ..." if len(paths) > _SHOWN else "")


def _told(text: str, unpacked: Mapping[str, str]) -> str:
    """Return a text that names archives instead of the folders that they were unpacked into."""
    for folder, archive in unpacked.items():
        text = text.replace(folder, archive)
    return text


def _shown_paths(reading: Reading, unpacked: Mapping[str, str]) -> Reading:
    """Return a reading whose words name archives instead of the folders that they were unpacked into."""

    def told(text: str) -> str:
        return _told(text, unpacked)

    if not unpacked:
        return reading
    dropped = {told(name): told(reason) for name, reason in reading.data.dropped.items()}
    return Reading(
        dataclasses.replace(reading.data, dropped=dropped),
        reading.files,
        [
            dataclasses.replace(item, file=told(item.file), reason=told(item.reason))
            for item in reading.damaged
        ],
        [told(note) for note in reading.notes],
    )
