"""Writing files so that a crash or a full disk never harms what was there before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``, on an error it is removed.

    The file is flushed to the disk before it is moved, so after a crash either the old or the new content is there.

    Args:
        path: the file to write; its folder must exist, see :func:`make_folder`.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: str | Path) -> None:
    """Raise now what writing a file would raise after long work, as far as it can be told; nothing is created.

    Folders above the file that are missing may be made later.

    Raises:
        IsADirectoryError: it is a folder.
        NotADirectoryError: what should be a folder above it is a file.
        PermissionError: nothing can be written into the folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(
            f"out {str(path)!r} is a folder: name a file, for example {path / 'result.json'}"
        )
    above = path.parent
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        raise NotADirectoryError(
            f"out {str(path)!r} cannot be written, {above} is a file: name another folder"
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f"out {str(path)!r} cannot be written into {above}: name another folder")


def check_folder_of(path: str | Path) -> None:
    """Raise ``FileNotFoundError`` unless the folder that a file shall be written into exists."""
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot write {path}: folder {folder} does not exist; create it first")


def make_folder(path: str | Path) -> Path:
    """Make the folder that a file is to lie in, with those above it, and return the file's path.

    Raises:
        NotADirectoryError: one of them is a file.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"cannot write {path}: {path.parent} is or lies in a file; name another place"
        ) from None
    return path


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one piece (UTF-8; what UTF-8 lacks, as in a name of other bytes, comes as an escape)."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
