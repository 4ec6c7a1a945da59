"""Folders of the control groups that a Linux process is in, of version 2 and of version 1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield the folders of the process's groups that may limit it, each group before those above it.

    Args:
        controller: the name in version 1, ``memory`` or ``cpu``; groups of version 2 have all.
        root: above ``proc`` and ``sys``.
    """
    base = root / "sys/fs/cgroup"
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            # Version 1 is mounted by the names of its controllers, version 2 beside it as "unified".
            tops = (
                [base / each for each in (controllers, controller)]
                if controllers
                else [base / "unified", base]
            )
            top = next((each for each in tops if each.is_dir()), base)
            group = top / name.lstrip("/")
            # In a container the name may be one of outside, and its own group lies at the top.
            for folder in (group, *group.parents) if group.is_dir() else (top,):
                yield folder
                if folder == top:
                    break
