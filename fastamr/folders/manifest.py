"""What the library wrote into a folder: the only files that it ever deletes there, and only when asked to."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path, PurePosixPath

from ..files import check_plain

MANIFEST = "manifest.jsonl"


def note_written(folder: str | Path, *names: str | Path) -> None:
    """Add files to the list in a folder; each is noted once.

    The list is only ever appended to, in one piece, so that several processes may note files at the same time.

    Args:
        folder: the folder, which exists.
        names: the files, relative to the folder or below it.

    Raises:
        OSError: the list cannot be written.
        ValueError: a pipe or a device lies in its place.
    """
    folder = Path(folder)
    check_plain(folder / MANIFEST)
    known = set(written(folder))
    relative = [_relative(folder, name) for name in names]
    new = [name for name in dict.fromkeys(relative) if name is not None and name not in known]
    if not new:
        return
    handle = os.open(folder / MANIFEST, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        # A line that a full disk cut short stays apart from the next one.
        os.write(handle, "".join(f"\n{json.dumps({'wrote': name})}" for name in new).encode() + b"\n")
    finally:
        os.close(handle)


def written(folder: str | Path) -> list[str]:
    """Return the files that the list in a folder names and that lie in it; none where there is no list.

    Lines that are damaged, and names that lead out of the folder, are passed over.
    """
    try:
        check_plain(Path(folder) / MANIFEST)
        lines = (Path(folder) / MANIFEST).read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    found: dict[str, None] = {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            name = json.loads(line)["wrote"]
            if isinstance(name, str) and _is_inside(Path(folder), name):
                found[name] = None
    return list(found)


def remove_written(folder: str | Path, *names: str) -> None:
    """Remove the files that the list in a folder names, folders that are then empty, and the list.

    Args:
        folder: the folder.
        names: files to remove beside them.

    Raises:
        OSError: a file cannot be removed.
    """
    folder = Path(folder)
    listed = written(folder)
    for name in dict.fromkeys([*listed, *names]):
        path = folder / name
        if path.is_file() or path.is_symlink():
            path.unlink()
    for inside in sorted({folder / name for name in listed}, reverse=True):
        for above in inside.relative_to(folder).parents[:-1]:
            with contextlib.suppress(OSError):  # holds something else
                (folder / above).rmdir()
    (folder / MANIFEST).unlink(missing_ok=True)


def _relative(folder: Path, name: str | Path) -> str | None:
    """Return a file's name relative to the folder, with slashes; None for one that lies elsewhere."""
    path = Path(name)
    if path.is_absolute() or path.is_relative_to(folder):
        try:
            path = path.resolve().relative_to(folder.resolve())
        except ValueError:
            return None
    return path.as_posix() if _is_inside(folder, path.as_posix()) else None


def _is_inside(folder: Path, name: str) -> bool:
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts or name == MANIFEST:
        return False
    try:
        return (folder / name).parent.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False
