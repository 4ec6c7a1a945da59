"""Writing files so that a crash or a full disk never harms what was there before."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path``, on an error it is removed.

    The file is flushed to the disk before it is moved, so after a crash either the old or the new content is there.

    Args:
        path: the file to write; its folder must exist, see :func:`make_folder`.

    Raises:
        OSError: the file cannot be written (a full disk, a folder that is gone or may not be written into); it names
            the file, and what was there before is intact.
    """
    path = Path(path)
    check_name_of_tensors(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:  # Windows flushes only what is open for writing
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):  # the folder may be gone
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, name):
            raise _unwritable(path, error) from error
        if type(error).__name__ == "SafetensorError":
            raise _unwritable(path, error) from error
        raise


def check_name_of_tensors(path: Path) -> None:
    """Raise ``ValueError`` for a ``.safetensors`` file whose name is not UTF-8: it could be written, not read."""
    try:
        if path.suffix == ".safetensors":
            os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"{path}: safetensors opens no file whose name, or whose folder's, is not UTF-8: rename it"
        ) from None


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for files that are needed for a while; it is removed with them.

    Raises:
        OSError: there is no place for it, or the disk is full; the message says how to name another.
    """
    folder, way_on = "", "TMPDIR names another folder for temporary files"
    try:
        with tempfile.TemporaryDirectory(prefix="fastamr-") as folder:
            yield Path(folder)
    except OSError as error:
        elsewhere = error.filename is not None and folder not in str(error.filename)
        if folder and (elsewhere or error.errno not in (errno.ENOSPC, errno.EDQUOT)):
            raise
        raise OSError(error.errno, f"{error.strerror or error}; {way_on}", error.filename) from error


def _unwritable(path: Path, error: BaseException) -> OSError:
    """Return the error of a failed write with the file's name, of the same class where it is an ``OSError``."""
    if not isinstance(error, OSError):
        return OSError(f"cannot write {path}: {error}")
    text = error.strerror or str(error)
    if os.name == "nt" and isinstance(error, PermissionError):
        text += "; Windows replaces no file that is open or mapped: close what reads it, or name another file"
    return type(error)(error.errno, f"cannot write: {text}", str(path)) if error.errno else error


def check_plain(path: str | Path) -> None:
    """Raise for a pipe, a device or a socket, whose reading may never end; what is missing is passed over.

    Pipes that a shell opened (``/dev/stdin``, ``/dev/fd/63``) have a writer and pass.

    Raises:
        ValueError: it is one.
    """
    path = Path(path)
    with suppress(OSError):  # a link to itself
        is_opened = (
            str(path) == "/dev/stdin" or path.parent == Path("/dev/fd") or path.parts[:2] == ("/", "proc")
        )
        if path.exists() and not path.is_file() and not path.is_dir() and not is_opened:
            raise ValueError(f"{path} is a pipe, a device or a socket, expected a plain file")


def check_writable(path: str | Path, *inputs: str | Path | None) -> None:
    """Raise now what writing a file would raise after long work, as far as it can be told; nothing is created.

    Folders above the file that are missing may be made later.

    Args:
        path: the file to write.
        inputs: files and folders that are read, which writing must not replace; what is None or does not exist is
            passed over.

    Raises:
        IsADirectoryError: it is a folder.
        NotADirectoryError: what should be a folder above it is a file.
        PermissionError: nothing can be written into the folder.
        FileExistsError: it is one of the inputs, or a file in one of them, under whatever name.
        ValueError: a tensor file's name is not UTF-8.
    """
    path = Path(path)
    check_name_of_tensors(path)
    for source in inputs:
        if source is not None:
            _check_no_input(path, Path(source))
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


def _check_no_input(path: Path, source: Path) -> None:
    """Raise ``FileExistsError`` if a file to write is a file that is read, or lies in a folder that is read."""
    try:
        found = _same_file(path, source)
    except OSError:  # one of them does not exist, or cannot be looked at: whoever opens it says so
        return
    if found is None:
        return
    names = "" if str(found) == str(path) else f" ({found})"
    raise FileExistsError(
        f"out {str(path)!r} is one of the files that are read{names} and would be replaced: name another file"
    )


def _same_file(path: Path, source: Path) -> Path | None:
    """Return the input that a file is, by device and number, so that links count too."""
    own = path.stat()
    if not source.is_dir():
        return source if os.path.samestat(own, source.stat()) else None
    for folder, _, names in os.walk(source):
        for name in names:
            inside = Path(folder, name)
            with suppress(OSError):  # a link to nothing
                if os.path.samestat(own, inside.stat()):
                    return inside
    return None


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
