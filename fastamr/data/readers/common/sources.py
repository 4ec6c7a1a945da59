"""Raw files where they lie: a folder, a zip archive, or a folder with zip archives in it, never unpacked.

An archive is read member by member into memory; nothing of it is written to the disk, so that a member's name can
lead nowhere. Names that try to are refused all the same, as are members and archives that would swell (zip bombs).
"""

from __future__ import annotations

import functools
import os
import re
import stat
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ....errors import STRAY, told
from ....files import check_plain

MAX_FILE_BYTES = 256 << 20
"""Largest raw file that is read (choice): the field's longest streams have 20 MB."""

MAX_RATIO = 200
"""Largest ratio of unpacked to packed size of an archive (choice): text of coordinates has 3 to 10."""

HARMLESS_BYTES = 64 << 20
"""Archives below this size unpacked are harmless whatever their ratio."""
_ARCHIVE_ERRORS = (zipfile.BadZipFile, RuntimeError, ValueError, OSError, *STRAY)


class DamagedFile(ValueError):
    """A raw file that cannot be used; it costs itself only.

    Args:
        reason: what is wrong, in a few words.
        line: the line where, counted from 1, or None.
        file: which file, where a task has several.
    """

    def __init__(self, reason: str, line: int | None = None, file: str | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason, self.line, self.file = reason, line, file


def whole_file(path: Path) -> bytes:
    """Return the content of a raw file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than :data:`MAX_FILE_BYTES`.
    """
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1) if path.stat().st_size <= MAX_FILE_BYTES else None
    if content is None or len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} has more than {MAX_FILE_BYTES} bytes; part it into files of a clip each")
    return content


@dataclass(frozen=True)
class Entry:
    """A raw file.

    Args:
        container: the folder or the archive that it lies in.
        name: its path in there, with ``/``.
        size: bytes, unpacked.
        stamp: time of the last change in ns, or the checksum in an archive.
        archived: whether the container is an archive.
    """

    container: str
    name: str
    size: int
    stamp: int
    archived: bool

    @property
    def base(self) -> str:
        """The name without its folders."""
        return self.name.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.container}/{self.name}"

    def read(self, count: int | None = None) -> bytes:
        """Return the content, or its first ``count`` bytes.

        Raises:
            DamagedFile: it is too large, or cannot be read or unpacked.
        """
        if self.size > MAX_FILE_BYTES:
            raise DamagedFile(f"has {self.size} bytes, more than the {MAX_FILE_BYTES} that are read")
        try:
            if not self.archived:
                with open(Path(self.container, self.name), "rb") as file:
                    return file.read(MAX_FILE_BYTES if count is None else count)
            status = os.stat(self.container)
            # zipfile reads no more than the size that the directory tells, and compares the checksum at its end.
            with _archive(self.container, status.st_mtime_ns, status.st_size).open(self.name) as member:
                return member.read(-1 if count is None else count)
        except KeyError:
            raise DamagedFile("is no longer in the archive") from None
        except _ARCHIVE_ERRORS as error:
            raise DamagedFile(f"cannot be read ({told(error)})") from None


@dataclass
class Listing:
    """The files of a source.

    Args:
        entries: sorted by base name, then by place.
        refused: place and reason of those that are not touched.
        others: names of files with other endings, for hints.
    """

    entries: list[Entry] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def list_files(raw: str | Path, suffixes: Collection[str]) -> Listing:
    """List the files of a source that have one of some endings.

    Args:
        raw: a folder (with all folders below it, and the zip archives in them), or a zip archive.
        suffixes: endings in lower case, for example ``[".txt"]``.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it is neither a folder nor a zip archive, or a damaged archive or a bomb; in a folder, such an
            archive costs itself only.
    """
    raw = Path(raw)
    if not raw.exists():
        raise FileNotFoundError(f"no folder or zip archive {raw}")
    check_plain(raw)
    listing = Listing()
    if not raw.is_dir():
        _list_archive(raw, suffixes, listing)
    else:
        for path in _walk(raw):
            ending = path.suffix.lower()
            if ending in suffixes:
                _list_file(raw, path, listing)
            elif ending == ".zip":
                try:
                    _list_archive(path, suffixes, listing)
                except ValueError as error:
                    listing.refused[str(path)] = str(error).removeprefix(f"{path} ")
            else:
                listing.others.append(path.name)
    listing.entries.sort(key=lambda entry: (entry.base, entry.container, entry.name))
    return listing


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order; links are followed, circles are not."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        # Files that macOS adds to archives and foreign disks are named ._NAME.
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("._"))


def _list_file(root: Path, path: Path, listing: Listing) -> None:
    try:
        status = path.stat()
    except OSError as error:
        listing.refused[str(path)] = f"cannot be read ({error.strerror})"
        return
    if not stat.S_ISREG(status.st_mode):
        listing.refused[str(path)] = "is not a plain file"
        return
    name = path.relative_to(root).as_posix()
    listing.entries.append(Entry(str(root), name, status.st_size, status.st_mtime_ns, archived=False))


def _list_archive(path: Path, suffixes: Collection[str], listing: Listing) -> None:
    try:
        status = path.stat()
        archive = _archive(str(path), status.st_mtime_ns, status.st_size)
        members = archive.infolist()
    except _ARCHIVE_ERRORS as error:
        raise ValueError(
            f"{path} is no zip archive, or is truncated ({told(error)}); fetch it again, or give the unpacked folder"
        ) from None
    check_swelling(archive, status.st_size, path)
    for member in members:
        name = member.filename
        if name.endswith("/") or Path(name).name.startswith("._"):
            continue
        if Path(name).suffix.lower() not in suffixes:
            listing.others.append(Path(name).name)
        elif reason := _refusal(member):
            listing.refused[f"{path}/{name}"] = reason
        else:
            listing.entries.append(Entry(str(path), name, member.file_size, member.CRC, archived=True))


def check_swelling(archive: zipfile.ZipFile, size: int, path: Path) -> None:
    """Raise ``ValueError`` where an archive of so many bytes would swell to more than a data set does."""
    total = sum(member.file_size for member in archive.infolist())
    if total > max(HARMLESS_BYTES, MAX_RATIO * size):
        raise ValueError(
            f"{path} holds {total} bytes in {size}, more than {MAX_RATIO} to 1: this looks like a zip bomb; "
            f"if it is none, unpack it and give the folder"
        )


def _refusal(member: zipfile.ZipInfo) -> str | None:
    """Return why a member is not touched, or None."""
    # zipfile cuts names at a NUL and turns the system's separator into "/"; orig_filename is what the archive says.
    parts = re.split(r"[/\\]", member.orig_filename)
    if not parts[-1]:
        return "it has no name"
    if "\0" in member.orig_filename or ".." in parts or parts[0] == "" or ":" in parts[0]:
        return "its name leads out of the archive"
    if member.flag_bits & 1:
        return "is encrypted"
    return None


@functools.lru_cache(maxsize=8)
def _archive(path: str, changed: int, size: int) -> zipfile.ZipFile:
    """Return an open archive; time of change and size make sure that it is the one on the disk."""
    return zipfile.ZipFile(path)
