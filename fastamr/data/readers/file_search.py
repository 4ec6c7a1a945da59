"""The files and folders below some paths that are to be read, each under the name that its clips get."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import STRAY
from ...files import temporary_folder
from .common.reader import Damage, Reader, Source
from .common.sources import DamagedFile, list_files
from .registry import READERS, of_kind

# What tools call every result, so that the folder above it tells which one it is.
_GENERIC = re.compile(
    r"(alphapose[-_ ]?results?|openpose|labels?|key[-_ ]?points?(_?[23]d)?|poses?(_?[23]d)?|skeletons?|landmarks?|"
    r"results?|predictions?|output|json|data|frames|annotations?|vis_results)",
    re.IGNORECASE,
)
_JUNK = {"__macosx", "thumbs.db", "desktop.ini"}
# Hidden folders of programs, which hold no clips.
_TOOLS = (".git", ".svn", ".hg", ".ipynb_checkpoints", ".idea", ".vscode", ".cache", ".venv", ".Trashes")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return what sorts names with numbers as people do: ``2`` before ``10``."""
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


@dataclass(frozen=True)
class Unit:
    """A file or a folder that is read in one go, and what its clips are called."""

    path: Path
    name: str


@dataclass
class FoundFiles:
    """The files and folders that are to be read."""

    kind: str | None
    without: set[tuple[int, int]]
    stack: contextlib.ExitStack
    seen: set[tuple[int, int]] = field(default_factory=set)
    units: list[Unit] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    unknown: list[Unit] = field(default_factory=list)
    unpacked: dict[str, str] = field(default_factory=dict)
    hidden: list[Unit] = field(default_factory=list)
    links: int = 0

    def add(self, path: Path, top: Path) -> None:
        """Add what a path that was given by name holds."""
        if not path.exists():
            raise FileNotFoundError(f"no file {path} to import")
        inside = path == top or path.resolve() == top
        name = "" if inside else Path(os.path.relpath(path.absolute(), top)).as_posix()
        self._add(path, name if path.is_dir() else _without_ending(name))

    def name_after_folders(self) -> None:
        """Drop the last word of names that all end in one which says nothing: ``wave/v1/alphapose-results``."""
        while len(self.units) > 1:
            last = {unit.name.rpartition("/")[2] for unit in self.units}
            above = [unit.name.rpartition("/")[0] for unit in self.units]
            if len(last) > 1 or not _GENERIC.fullmatch(last.pop()):
                return
            if not all("/" in name for name in above) or len(set(above)) < len(above):
                return
            self.units = [Unit(unit.path, name) for unit, name in zip(self.units, above, strict=True)]

    def _add(self, path: Path, name: str) -> None:
        identity = identity_of(path)
        if identity in self.without:
            return
        if identity in self.seen:
            self.links += not path.is_dir()
            return
        self.seen.add(identity)
        source = Source(path)
        if not source.is_folder or folder_reader(source, self.kind):
            self.units.append(Unit(path, name or path.stem))
        elif path.is_dir():
            self._add_folder(path, name)
        else:
            folder = self._unpack(path)
            if folder is not None:
                self._add_folder(folder, name)

    def _add_folder(self, folder: Path, name: str) -> None:
        try:
            inside = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
        except OSError as error:
            self.damaged.append(Damage(str(folder), f"cannot be read ({error.strerror})"))
            return
        for path in inside:
            if path.name.startswith(".") or path.name.lower() in _JUNK:
                if (
                    path.is_dir()
                    and path.name.startswith(".")
                    and path.name not in _TOOLS
                    and any(path.rglob("*.*"))
                ):
                    self.hidden.append(Unit(path, f"{name}/{path.name}" if name else path.name))
                continue
            if not path.exists():
                self.damaged.append(Damage(str(path), "is a link that leads nowhere"))
            elif path.is_dir() or path.is_file():
                below = path.name if path.is_dir() else _without_ending(path.name)
                self._add(path, f"{name}/{below}" if name else below)

    def _unpack(self, archive: Path) -> Path | None:
        """Return a folder with the files of an archive, which lasts as long as the reading."""
        suffixes = {
            f".{suffix.rpartition('.')[2]}"
            for reader in READERS
            for suffix in getattr(reader, "suffixes", ())
        } | {".safetensors"}
        try:
            listing = list_files(archive, suffixes)
        except ValueError as error:
            self.damaged.append(Damage(str(archive), str(error).removeprefix(f"{archive} ")))
            return None
        folder = self.stack.enter_context(temporary_folder())
        self.unpacked[str(folder)] = str(archive)
        self.unknown += [Unit(archive / name, _without_ending(name)) for name in listing.others]
        self.damaged += [Damage(place, reason) for place, reason in listing.refused.items()]
        for entry in listing.entries:
            target = folder / entry.name
            try:
                content = entry.read()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            except DamagedFile as error:
                self.damaged.append(Damage(str(entry), error.reason))
            except OSError as error:
                # A name too long, or a file where another member has a folder; a full disk ends the reading.
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                    raise
                self.damaged.append(Damage(str(entry), f"cannot be unpacked ({error.strerror})"))
        return folder


def folder_reader(source: Source, kind: str | None) -> Reader | None:
    """Return the reader that reads a folder as a whole, or None."""
    for reader in of_kind(kind):
        if isinstance(reader, Reader) and reader.takes_folder and reader.fits(source):
            with contextlib.suppress(ValueError, OSError, *STRAY):
                if reader.sniff(source):
                    return None if _is_mixed(source.path, reader) else reader
    return None


def _is_mixed(folder: Path, reader: Reader) -> bool:
    """Tell whether folders below one, but not the folder itself, hold files that other readers than its reader read."""
    others = tuple(suffix for other in READERS if isinstance(other, Reader) for suffix in other.suffixes)
    found = False
    for path, names in _folders_below(folder):
        files = [name.lower() for name in names if not name.startswith(".")]
        if any(name.endswith(reader.suffixes) for name in files):
            if path == folder:
                return False
        elif any(name.endswith(others) for name in files):
            found = True
    return found


def _folders_below(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those below it with the names of their files; links are followed, circles are not."""
    seen = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        identity = identity_of(Path(path))
        if identity in seen:
            folders.clear()
        else:
            seen.add(identity)
            yield Path(path), files


def identity_of(path: Path) -> tuple[int, int]:
    """Return what tells a file or folder from all others, whatever links lead to it."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _without_ending(name: str) -> str:
    """Return a name without its ending; ``_keypoints.json`` and its like are one ending."""
    return re.sub(r"(?<=[^/])\.[^./]*$", "", name)
