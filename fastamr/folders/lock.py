"""A lock on a folder that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import time
from pathlib import Path
from types import ModuleType, TracebackType

from ..progress import say

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

LOCK_FILE = ".lock"
# What a file system without locks answers.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}


class FolderLock:
    """Context manager: this process is the only one that writes into a folder, which is made where it is missing.

    It locks the file ``.lock`` in the folder (``flock``), which a clean end removes. A killed process leaves the file
    but no lock: the system releases it. On NFS the lock holds between machines unless the mount option ``nolock`` or
    ``local_lock`` says otherwise. Where the system has no such locks, a line says so and the work goes on.

    Args:
        folder: the folder.
        what: who uses it, for the message to others, as ``fastamr pretrain``.
        shared: let others in that are ``shared`` too, and go on where the folder cannot be written at all.
    """

    def __init__(self, folder: str | Path, what: str, *, shared: bool = False) -> None:
        self.folder, self.what, self.shared = Path(folder), what, shared
        self._handle: int | None = None

    def __enter__(self) -> FolderLock:
        if self.shared and not os.access(self.folder, os.W_OK):
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while fcntl is not None and not self._lock():
                pass
        except OSError as error:
            self._close()
            if isinstance(error, BlockingIOError):
                raise
            if error.errno in _NO_LOCKS:
                say(
                    f"warning: no lock on {self.folder} ({error.strerror}): start nothing else that writes into it"
                )
                return self
            raise type(error)(
                error.errno, f"cannot write into the folder: {error.strerror}", str(self.folder)
            ) from None
        return self

    def _lock(self) -> bool:
        """Lock the file; False where its last user has removed it meanwhile.

        Raises:
            BlockingIOError: another process has it.
        """
        assert fcntl is not None
        path = self.folder / LOCK_FILE
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._handle, (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            user = os.pread(self._handle, 500, 0).decode("utf-8", "replace").strip() or "another process"
            raise BlockingIOError(
                f"{self.folder} is in use by {user}: wait for its end, or name another folder"
            ) from None
        try:
            current = os.path.samestat(os.fstat(self._handle), os.stat(path))
        except FileNotFoundError:
            current = False
        if not current:
            self._close()
            return False
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        user = f"{self.what} (process {os.getpid()} on {platform.node()}, since {since})"
        with contextlib.suppress(OSError):  # a full disk; the lock holds without the words
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, user.encode(), 0)
        return True

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is None or fcntl is None:
            return
        with contextlib.suppress(OSError):  # another one shares it, or the folder is gone
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self.folder / LOCK_FILE).unlink()
        self._close()
