"""The folder of libraries that were built on first use: whose it may be, and which of its files are loaded.

What is loaded runs as the user, so a folder or file that somebody else can write is none: see :func:`is_private`.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..progress import say

# Files that are made here, by their ending.
_ENDINGS = (".so", ".json", ".lock", ".failed")
_BUILDING = ".build-"
# A failed build is tried again after a day: what went wrong may have been a full disk.
_REMEMBERED = 24 * 3600


def cache_folder() -> Path:
    """Folder of the libraries built on first use: ``FASTAMR_CACHE``, else ``fastamr`` in the user's cache folder.

    Where there is no such folder, as without a home or with one that is no absolute path, it is that in the temporary
    folder.
    """
    return _folders()[0]


def _folders() -> list[Path]:
    """The folders that are asked, the first choice first: the cache's, and that in the temporary folder."""
    named, base, found = os.environ.get("FASTAMR_CACHE"), Path(os.environ.get("XDG_CACHE_HOME", "")), []
    if named:
        found.append(Path(named))
    elif base.is_absolute():
        found.append(base / "fastamr")
    else:
        with suppress(RuntimeError):  # nobody knows the user's home
            if Path.home().is_absolute():
                found.append(Path.home() / ".cache/fastamr")
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError:  # none can be written, the current folder neither
        temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    return list(dict.fromkeys([*found, temporary / f"fastamr-{_user()}"]))


def _user() -> int:
    """The user's number; 0 on Windows, where nothing is compiled."""
    return os.getuid() if hasattr(os, "getuid") else 0


def why_not_private(path: Path) -> str | None:
    """Why a folder or file may have been written by somebody else, None if it cannot.

    It must be the user's or root's, no link, and written by nobody else; the folders above it must be written by
    nobody else either, or be sticky, as ``/tmp`` is. Windows, which has other rights, builds nothing and loads nothing.
    """
    if not hasattr(os, "geteuid"):
        return "nothing is built on this system"
    try:
        status = path.lstat()
        mine = (os.geteuid(), 0)
        if stat.S_ISLNK(status.st_mode):
            return "it is a link"
        if status.st_uid not in mine:
            return f"it belongs to user {status.st_uid}"
        if status.st_mode & 0o022:
            return f"others may write it (mode {stat.S_IMODE(status.st_mode):o})"
        for above in path.resolve().parents:
            status = above.stat()
            if status.st_uid not in mine or (status.st_mode & 0o002 and not status.st_mode & stat.S_ISVTX):
                return f"{above} above it belongs to others, or others may write it"
    except OSError as error:
        return str(error)
    return None


def readable() -> list[Path]:
    """Folders that libraries may be loaded from, the first choice first."""
    return [folder for folder in _folders() if folder.is_dir() and _made_private(folder) is None]


def _made_private(folder: Path) -> str | None:
    """Take from others the right to write into the user's own folder; why it is not private all the same."""
    try:
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o022:
            folder.chmod(0o700)
    except OSError as error:
        return str(error)
    return why_not_private(folder)


def writable() -> Path:
    """Folder to build into: the cache, else one in the temporary folder, else one of this process alone."""
    for folder in _folders():
        reason = _prepare(folder)
        if reason is None:
            return folder
        _say(f"fastamr: does not use the cache {folder}: {reason}; FASTAMR_CACHE names another folder")
    return _own_folder()


@functools.cache
def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _prepare(folder: Path) -> str | None:
    """Make the folder; why nothing can be built in it, None if it can."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        reason = _made_private(folder)
        if reason is None:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        reason = str(error)
    return reason


@functools.cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fastamr-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that parallel processes build once and the others wait for the result."""
    import fcntl  # not on Windows, where nothing is compiled

    with path.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"fastamr: waits for another process that compiles the extension (lock: {path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def seal(library: Path, sources: str, built: Path) -> None:
    """Write down what a finished library is, before it takes its place.

    Args:
        library: its place.
        sources: what it was built of.
        built: the finished file.
    """
    built.chmod(0o700)
    note = library.with_suffix(".json")
    note.write_text(json.dumps({"blake2b": _digest(built), "sources": sources}), encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _note(library: Path) -> dict[str, str]:
    try:
        found = json.loads(library.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_sound(library: Path) -> bool:
    """Whether a library is the user's own, or root's, and whole: one that was cut short would end the process."""
    if not library.is_file() or why_not_private(library) is not None:
        return False
    return _note(library).get("blake2b") == _digest(library)


def find(folder: Path, device: str, sources: str) -> Path | None:
    """Return a sound library of these sources, whatever compiler built it: the largest, which has most instructions."""
    found = sorted(folder.glob(f"{device}-*.so"), key=lambda path: path.stat().st_size, reverse=True)
    for library in found:
        if _note(library).get("sources") == sources and is_sound(library):
            return library
    return None


def failure(path: Path) -> str | None:
    """Return the first line of what a build said that failed less than a day ago."""
    try:
        if time.time() - path.stat().st_mtime > _REMEMBERED:
            return None
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return None


def files() -> list[Path]:
    """Return what was built, in the folders that are used."""
    return [path for folder in readable() for path in sorted(folder.iterdir()) if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    if path.name.startswith(_BUILDING):
        return path.is_dir()
    return path.name.startswith(("cpu-", "cuda-")) and path.suffix in _ENDINGS


def clear() -> int:
    """Delete what was built, and the folders if nothing else is in them; return how many bytes that frees."""
    freed = 0
    folders = readable()
    for path in files():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            freed += path.lstat().st_size
            path.unlink(missing_ok=True)
    for folder in folders:
        if not any(folder.iterdir()):
            folder.rmdir()
    return freed
