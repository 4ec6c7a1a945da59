"""Runs a script as if on Windows or macOS: ``python other_system.py win32|darwin SCRIPT WORDS...``.

The package's own code sees a standard library without what the other system lacks, and with that system's answers;
torch, numpy and the rest still run here, so they are imported before. What cannot be had here: the other system's own
kernel, file names and builds of torch.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import importlib
import io
import os
import platform
import runpy
import signal
import socket
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

OWN = ("fastamr", "kernels", "__main__")
# What Python's documentation calls "Availability: Unix" or "not Windows", by module.
UNIX_ONLY: dict[ModuleType, tuple[str, ...]] = {
    os: (
        "fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "getgroups", "setuid", "setgid", "getpgid",
        "getpgrp", "setpgid", "setsid", "killpg", "nice", "chown", "fchown", "lchown", "fchmod", "chroot", "mkfifo",
        "mknod", "pread", "pwrite", "preadv", "pwritev", "sendfile", "statvfs", "fstatvfs", "sysconf",
        "confstr", "uname", "wait", "wait3", "wait4", "WIFEXITED", "WEXITSTATUS", "WTERMSIG", "ttyname",
        "getloadavg", "sched_getaffinity", "sched_setaffinity", "sched_yield", "posix_fadvise", "posix_fallocate",
        "lockf", "fdatasync", "sync", "pipe2", "set_blocking", "get_blocking", "memfd_create", "copy_file_range",
        "posix_spawn", "getxattr", "setxattr", "O_NOFOLLOW", "O_DIRECTORY", "O_NONBLOCK", "O_CLOEXEC", "O_SYNC",
        "register_at_fork", "fchdir", "WNOHANG", "openpty", "getresuid", "initgroups", "environb", "fsencodeb",
    ),
    signal: (
        "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGCONT",
        "SIGBUS", "SIGXCPU", "alarm", "setitimer", "getitimer", "pause", "pthread_kill", "pthread_sigmask", "sigwait",
        "sigwaitinfo", "sigtimedwait", "siginterrupt", "sigpending",
    ),
    socket: ("AF_UNIX", "socketpair_unix", "SO_REUSEPORT", "fromfd", "send_fds", "recv_fds"),
    time: ("tzset", "clock_gettime_ns", "pthread_getcpuclockid"),
}  # fmt: skip
NOT_ON_MAC: dict[ModuleType, tuple[str, ...]] = {
    os: (
        "sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate", "memfd_create", "pipe2",
        "copy_file_range", "getxattr", "setxattr", "getresuid", "fdatasync",
    ),
    signal: ("sigwaitinfo", "sigtimedwait", "pidfd_send_signal"),
}  # fmt: skip
UNIX_MODULES = (
    "fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "readline", "curses",
)  # fmt: skip
# Never there: a compiler's and the kernels' language.
BLOCKED = ("triton", "ninja")
# Imported before, since they look for the real system while they are imported.
FIRST = (
    "torch", "torch.utils.data", "torch.optim", "torch.distributed", "numpy", "numpy.lib.format", "scipy.optimize",
    "scipy.spatial.transform", "scipy.io", "scipy.sparse", "safetensors.torch", "safetensors.numpy", "yaml", "tqdm",
    "jsonargparse", "multiprocessing.context", "concurrent.futures.process", "subprocess", "tempfile", "shutil",
    "zipfile", "tarfile", "webbrowser", "asyncio", "select", "uuid", "getpass", "torch.export", "torch._dynamo",
    "torch._inductor.config", "torch.fx.experimental.symbolic_shapes", "mmap",
)  # fmt: skip


def asked_by_the_package(depth: int = 2) -> bool:
    """Whether the code that asks is the package's, or the script's."""
    name = sys._getframe(depth).f_globals.get("__name__", "")
    return name.partition(".")[0] in OWN


def hide(module: ModuleType, names: tuple[str, ...], answers: dict[str, Any]) -> None:
    """Let the package's code find other values in a module, and lack some; everybody else sees the real ones."""
    lacking = frozenset(names)

    class OtherSystem(type(module)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if (name in lacking or name in answers) and asked_by_the_package():
                if name in lacking:
                    raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
                return answers[name]
            return super().__getattribute__(name)

    module.__class__ = OtherSystem


class WithoutThese:
    """A finder of modules that finds none of some names."""

    def __init__(self, finder: Any, names: tuple[str, ...]) -> None:
        self.finder, self.names = finder, names

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in self.names:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def block(unix: tuple[str, ...]) -> None:
    """Make modules impossible to import, those of Unix only for the package."""
    sys.meta_path[:] = [WithoutThese(finder, BLOCKED) for finder in sys.meta_path]
    for name in [name for name in sys.modules if name.partition(".")[0] in BLOCKED]:
        del sys.modules[name]
    real = builtins.__import__

    def imports(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        own = (globals or {}).get("__name__", "").partition(".")[0] in OWN
        if own and level == 0 and name.partition(".")[0] in unix:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = imports


def other_files(is_windows: bool) -> None:
    """Hide ``/proc``; on Windows lines end in CR LF where nothing else was asked for, and UTF-8 must be named."""
    real = io.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
               newline: Any = None, *rest: Any, **more: Any) -> Any:  # fmt: skip
        if str(file).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(file))
        if is_windows and "b" not in mode:
            writes = not mode.startswith("r") or "+" in mode
            newline = "\r\n" if newline is None and writes else newline
            encoding = encoding or "cp1252"
        return real(file, mode, buffering, encoding, errors, newline, *rest, **more)

    io.open = builtins.open = opened


def in_use(path: Any) -> bool:
    """Whether this process has a file open or mapped, so that Windows would neither replace nor remove it."""
    try:
        wanted = os.stat(path)
    except OSError:
        return False
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.stat(f"/proc/self/fd/{name}"), wanted):
                return True
        except OSError:
            continue
    where = os.path.realpath(path)
    with os.fdopen(os.open("/proc/self/maps", os.O_RDONLY), "rb") as file:
        return any(line.rstrip().endswith(b" " + os.fsencode(where)) for line in file)


def files_as_on_windows() -> None:
    """A file that is open or mapped cannot be replaced, renamed or removed; only a file open for writing is synced."""
    import fcntl

    def guarded(real: Any, count: int) -> Any:
        def call(*paths: Any, **more: Any) -> Any:
            for path in paths[:count]:
                if isinstance(path, (str, bytes, Path)) and not os.path.isdir(path) and in_use(path):
                    text = "The process cannot access the file because it is being used by another process"
                    raise PermissionError(errno.EACCES, text, str(paths[0]), None, *map(str, paths[1:2]))
            return real(*paths, **more)

        return call

    for name, count in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
        setattr(os, name, guarded(getattr(os, name), count))
    sync = os.fsync

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        sync(number)

    os.fsync = fsync
    rename = os.rename

    def rename_only(source: Any, target: Any, **more: Any) -> None:
        if os.path.exists(target):
            raise FileExistsError(
                errno.EEXIST, "Cannot create a file when that file already exists", str(target)
            )
        rename(source, target, **more)

    os.rename = rename_only


def become(system: str) -> None:
    """Be Windows (``"win32"``) or macOS (``"darwin"``) for the package's code."""
    for name in FIRST:
        importlib.import_module(name)
    is_windows = system == "win32"
    real_library = ctypes.CDLL

    def library(name: Any, *words: Any, **more: Any) -> Any:
        if name is None and asked_by_the_package():
            if is_windows:
                raise TypeError("bad argument type for built-in operation")
            return object()
        return real_library(name, *words, **more)

    ctypes.CDLL = library  # type: ignore[misc, assignment]
    if is_windows:
        files_as_on_windows()
    names = "Windows" if is_windows else "Darwin"
    other_files(is_windows)
    for module, missing in (UNIX_ONLY if is_windows else NOT_ON_MAC).items():
        hide(module, missing, {"name": "nt", "linesep": "\r\n"} if is_windows and module is os else {})
    hide(platform, (), {"system": lambda: names, "machine": lambda: "AMD64" if is_windows else "arm64"})
    hide(sys, (), {"platform": system})
    block(UNIX_MODULES if is_windows else ())


if __name__ == "__main__":
    become(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
